//! What an answer needs before its generation begins: who answers, with which model, from which prompt.

use pleiad_models::Role;
use pleiad_runtime::SamplingParams;

use super::{
    duet::{self, Mind, Names},
    prompt::{View, answer_ids, conversation, spoken},
    seed,
};
use crate::{
    chats::{Answer, Chat, ChatId, Message, MessageId, Stop, Tree},
    loading::{LoadedModel, Models, Source},
};

/// An answer that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// In which conversation.
    pub chat: ChatId,
    /// What it follows.
    pub parent: MessageId,
    /// Who answers.
    pub mind: Mind,
    /// The answer that it goes on with; `None`: a new one.
    pub into: Option<MessageId>,
}

/// What is needed to begin a generation.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Ids of the prompt, behind it those of the answer so far.
    pub prompt: Vec<u32>,
    /// What is known of the answer before it is begun.
    pub answer: Answer,
    /// Who speaks, where there are two.
    pub author: Option<String>,
    /// How tokens are chosen.
    pub params: SamplingParams,
    /// The answer's text so far.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
}

/// The model that a mind answers with. The error is in words.
pub fn model_of<'a>(chat: &Chat, models: &'a Models, mind: Mind) -> Result<&'a LoadedModel, String> {
    let key = match mind {
        Mind::First => None,
        Mind::Second => chat.setup.duet.model.as_deref(),
    };
    models.get(key).ok_or_else(|| match key {
        None => "No model is loaded yet. Choose one, then ask for the answer.".into(),
        Some(key) => format!(
            "{} cannot answer, because its model is not loaded: {}. Load it beside the first, or choose another in the \
             settings of the conversation.",
            Names::of(&chat.setup.duet).second,
            Source::of(key).map_or_else(|| key.to_owned(), |s| s.name())
        ),
    })
}

/// What is wanted where `message` is to be answered anew, or gone on with. `None`: there is no such message, or nothing that
/// it could be an answer to.
pub fn again(chat: &Chat, message: MessageId) -> Option<Ask> {
    let said = chat.tree.get(message)?;
    let (parent, mind) = match said.role {
        Role::Assistant => (said.parent?, Mind::of(said, &Names::of(&chat.setup.duet))),
        Role::User | Role::System => (message, Mind::First),
    };
    Some(Ask { chat: chat.id.clone(), parent, mind, into: None })
}

/// The turn of the other mind that follows when `message`, for which `ask` asked, is complete.
pub fn next_of(chat: &Chat, ask: &Ask, message: MessageId) -> Option<Ask> {
    let turn = duet::turn_of(path_to(&chat.tree, ask.parent).into_iter());
    let said = chat.tree.get(message)?;
    let thinking = said.answer.as_ref().is_some_and(|a| a.thinking);
    let follows = duet::goes_on(&chat.setup.duet, turn) && said.children.is_empty() && !spoken(thinking, &said.text).is_empty();
    follows.then(|| Ask { chat: chat.id.clone(), parent: message, mind: ask.mind.other(), into: None })
}

/// The prompt of an answer, and how it is sampled. The error is in words.
pub fn prepare(chat: &Chat, model: &LoadedModel, ask: &Ask) -> Result<Prepared, String> {
    let names = Names::of(&chat.setup.duet);
    let path = path_to(&chat.tree, ask.parent);
    let turn = duet::turn_of(path.iter().copied());
    let answers_a_mind = path.last().is_some_and(|m| m.role == Role::Assistant && Mind::of(m, &names) != ask.mind);
    let request = if answers_a_mind { duet::request(&chat.setup, ask.mind, turn, &names) } else { None };
    let system = duet::system(&chat.setup, ask.mind, &names);
    let attributed = chat.setup.duet.on || ask.mind == Mind::Second || path.iter().any(|m| m.author.is_some());
    let view = View { mind: ask.mind, names: &names, system: &system, request: request.as_deref() };
    let prompt =
        model.prompter.prompt(&conversation(path, &view)).map_err(|e| format!("The prompt could not be written: {e:#}"))?;

    let params = chat.setup.sampling.params(&model.generation, seed::fresh());
    let so_far = ask.into.and_then(|id| chat.tree.get(id));
    let text = so_far.map_or_else(String::new, |m| m.text.clone());
    let mut answer = so_far.and_then(|m| m.answer.clone()).unwrap_or_default();
    if text.is_empty() {
        answer.thinking = prompt.thinking;
    }
    let answer = Answer {
        model: model.name.clone(),
        device: model.engine.info().device.clone(),
        sampled: params.clone(),
        second: ask.mind == Mind::Second,
        stop: Stop::Unfinished,
        ..answer
    };
    let ids = match model.engine.tokenizer() {
        Some(tokenizer) if !text.is_empty() => answer_ids(tokenizer, answer.thinking, prompt.thinking, &text)
            .map_err(|e| format!("The answer so far could not be read: {e}"))?,
        _ => Vec::new(),
    };
    let tokens = answer.stats.map_or(ids.len(), |s| s.generated_tokens);
    let prompt = [prompt.ids, ids].concat();
    if prompt.len() >= model.context() {
        return Err(format!(
            "The conversation has {} tokens, and the context of {} holds {}. Load the model with a longer context, shorten the \
             conversation, or begin a new one.",
            prompt.len(),
            model.name,
            model.context()
        ));
    }
    let author = attributed.then(|| names.get(ask.mind).to_owned());
    Ok(Prepared { prompt, answer, author, params, text, tokens })
}

/// The messages from the first to `id`.
fn path_to(tree: &Tree, id: MessageId) -> Vec<&Message> {
    tree.path_to(id).into_iter().filter_map(|id| tree.get(id)).collect()
}
