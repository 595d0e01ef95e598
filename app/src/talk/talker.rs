//! What people ask for: send, stop, regenerate, edit, continue.

use pleiad_models::{Role, Tokenizer};
use pleiad_runtime::{GenerateOptions, engine::GenerationStats};

use super::{
    Live,
    duet::Mind,
    places::{places, said},
    prepare::{Ask, Prepared, again, model_of, next_of, prepare},
    run::{Batch, End, Heard, Run, SoFar, add_up, with_texts},
    sessions::{Key, Sessions, same},
    survey::Surveys,
};
use crate::{
    activity::Activity,
    chats::{Answer, ChatId, Library, MessageId, Stop},
    loading::Models,
    thinking::CLOSE,
};

/// What is told where a conversation is not there.
const LOST: &str = "This conversation is damaged or was deleted.";

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// An answer is over: for screen readers.
    Finished {
        /// In which conversation.
        chat: ChatId,
        /// Which.
        message: MessageId,
    },
    /// Something went differently; the answer goes on.
    Info(String),
    /// Something failed, in words.
    Problem(String),
}

/// An answer under way.
#[derive(Debug)]
struct Turn {
    ask: Ask,
    message: MessageId,
    key: Key,
    /// The model's name.
    model: String,
    /// Tells it apart from other generations.
    number: u64,
    run: Run,
    answer: Answer,
    /// What earlier parts of the answer took.
    before: Option<GenerationStats>,
    /// Its routing is wanted for the view of experts.
    watched: bool,
    /// The prompt, until the view of experts has been told.
    prompt: Vec<u32>,
    /// The messages that it was made of, until then.
    said: Vec<(MessageId, String)>,
    /// When the engine was heard last, in seconds of the caller's clock.
    heard: Option<f64>,
    /// What is wanted once it is over, in the place of further turns of two minds.
    then: Option<Ask>,
}

/// All answers under way, over all conversations. Nothing here waits.
#[derive(Debug, Default)]
pub struct Talker {
    turns: Vec<Turn>,
    sessions: Sessions,
    surveys: Surveys,
    /// What is to be told with the next poll.
    notices: Vec<Notice>,
    /// Generations begun.
    begun: u64,
}

impl Talker {
    /// The person says something after the leaf that is shown, and the model answers.
    pub fn send(&mut self, library: &mut Library, models: &Models, chat: &ChatId, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let Some(leaf) = library.chat(chat).map(|c| c.tree.leaf()) else { return self.lost() };
        match library.add(chat, leaf, Role::User, None, text, None) {
            Some(question) => self.answer(library, models, chat, question),
            None => self.lost(),
        }
    }

    /// Answers a question that has no answer yet, or once more.
    pub fn answer(&mut self, library: &mut Library, models: &Models, chat: &ChatId, question: MessageId) {
        let ask = Ask { chat: chat.clone(), parent: question, mind: Mind::First, into: None };
        self.ask(library, models, ask);
    }

    /// Answers the same prompt anew: a sibling of `message`. Of a person's message: answers it.
    pub fn regenerate(&mut self, library: &mut Library, models: &Models, chat: &ChatId, message: MessageId) {
        match library.chat(chat).and_then(|c| again(c, message)) {
            Some(ask) => self.ask(library, models, ask),
            None => self.lost(),
        }
    }

    /// Says `text` in the place of `message`, as a sibling. A person's is answered; a model's stays as edited.
    pub fn edit(&mut self, library: &mut Library, models: &Models, chat: &ChatId, message: MessageId, text: &str) {
        let Some(old) = library.chat(chat).and_then(|c| c.tree.get(message)) else { return self.lost() };
        let (parent, role, author, answer) = (old.parent, old.role, old.author.clone(), old.answer.clone());
        if role != Role::Assistant {
            match library.add(chat, parent, role, author, text, None) {
                Some(question) => self.answer(library, models, chat, question),
                None => self.lost(),
            }
            return;
        }
        self.stop(chat);
        let answer = answer.unwrap_or_default();
        // A text without the end of its reasoning would be reasoning as a whole.
        let thinking = answer.thinking && text.contains(CLOSE);
        let answer = Answer { thinking, stop: Stop::End, ..answer };
        if library.add(chat, parent, role, author, text, Some(answer)).is_none() {
            self.lost();
        }
    }

    /// Goes on with an answer that ended early (stopped, cut at its longest, or the program ended).
    pub fn go_on(&mut self, library: &mut Library, models: &Models, chat: &ChatId, message: MessageId) {
        if self.turns.iter().any(|t| t.ask.chat == *chat && t.message == message && !t.run.cancelled()) {
            return;
        }
        let answered = library.chat(chat).filter(|c| c.tree.get(message).is_some_and(|m| m.role == Role::Assistant));
        match answered.and_then(|c| again(c, message)) {
            Some(ask) => self.ask(library, models, Ask { into: Some(message), ..ask }),
            None => self.lost(),
        }
    }

    /// Stops what is under way in a conversation, further turns of two minds included.
    pub fn stop(&mut self, chat: &ChatId) {
        for turn in self.turns.iter_mut().filter(|t| t.ask.chat == *chat) {
            turn.then = None;
            turn.run.cancel();
        }
    }

    /// Reads a text to see which experts it uses, in a session of its own; [`Talker::surveyed`] tells when it is over.
    /// `name` names it.
    pub fn survey(&mut self, models: &Models, name: &str, text: &str) {
        self.surveys.add(name, text);
        let notices = self.surveys.poll(models);
        self.notices.extend(notices);
    }

    /// Texts that have been read since this was last asked: the name, and uses of every expert `[rows, experts]`.
    pub fn surveyed(&mut self) -> Vec<(String, Vec<u64>)> {
        self.surveys.take()
    }

    /// The survey that is under way, and how many wait behind it.
    pub fn surveying(&self) -> Option<(&str, usize)> {
        self.surveys.under_way()
    }

    /// Stops all surveys, those that wait included.
    pub fn stop_surveys(&mut self) {
        self.surveys.stop();
    }

    /// Takes what the engines have said since the last call. `activity` is told of routing of the first model's answers;
    /// `now` in seconds of a clock that does not go back.
    pub fn poll(&mut self, library: &mut Library, models: &Models, mut activity: Option<&mut Activity>, now: f64) -> Vec<Notice> {
        // Sessions keep their model in memory: those of a model that was let go end, and their answers with them.
        self.sessions.keep(&|engine| models.loaded().iter().any(|m| same(&m.engine, engine)));
        let mut over = Vec::new();
        let (mut at, first) = (0, models.get(None));
        while let Some(turn) = self.turns.get_mut(at) {
            let batch = turn.run.poll();
            if !batch.any {
                at += 1;
                continue;
            }
            if library.chat(&turn.ask.chat).is_none() {
                // The conversation was deleted; a generation that is dropped is cancelled.
                let turn = self.turns.remove(at);
                self.sessions.forget(&turn.ask.chat);
                if let Some(activity) = activity.as_deref_mut().filter(|_| turn.watched) {
                    activity.end(turn.number, now);
                }
                continue;
            }
            // The view of experts is that of the first model.
            let shown = self.sessions.get(&turn.key).zip(first).filter(|(s, m)| turn.watched && same(s.engine(), &m.engine));
            if let (Some(activity), Some((session, _))) = (activity.as_deref_mut(), shown) {
                turn.tell(activity, session.engine().tokenizer(), &batch, now);
            }
            self.notices.extend(batch.notices.iter().cloned().map(Notice::Info));
            turn.write(library, &batch);
            match batch.end {
                Some(end) => over.push((self.turns.remove(at), end)),
                None => at += 1,
            }
        }
        for (turn, end) in over {
            if let Some(activity) = activity.as_deref_mut().filter(|_| turn.watched) {
                activity.end(turn.number, now);
            }
            self.finish(library, models, turn, end);
        }
        let notices = self.surveys.poll(models);
        self.notices.extend(notices);
        std::mem::take(&mut self.notices)
    }

    /// Whether anything is under way, or to be told with the next poll.
    pub fn busy(&self) -> bool {
        !self.turns.is_empty() || self.surveys.busy() || !self.notices.is_empty()
    }

    /// The answer under way in a conversation.
    pub fn live(&self, chat: &ChatId) -> Option<&Live> {
        self.turns.iter().find(|t| t.ask.chat == *chat).map(|t| t.run.live())
    }

    /// The conversations in which an answer is under way.
    pub fn chats(&self) -> Vec<ChatId> {
        self.turns.iter().map(|t| t.ask.chat.clone()).collect()
    }

    fn problem(&mut self, words: impl Into<String>) {
        self.notices.push(Notice::Problem(words.into()));
    }

    fn lost(&mut self) {
        self.problem(LOST);
    }

    /// Begins an answer, once the one that is under way in that conversation has stopped.
    fn ask(&mut self, library: &mut Library, models: &Models, ask: Ask) {
        match self.turns.iter_mut().find(|t| t.ask.chat == ask.chat) {
            Some(turn) => {
                turn.run.cancel();
                turn.then = Some(ask);
            }
            None => {
                if let Err(words) = self.begin(library, models, ask) {
                    self.problem(words);
                }
            }
        }
    }

    /// Begins an answer. The error is in words.
    fn begin(&mut self, library: &mut Library, models: &Models, ask: Ask) -> Result<(), String> {
        let chat = library.chat(&ask.chat).ok_or(LOST)?;
        let model = model_of(chat, models, ask.mind)?;
        let max_tokens = chat.setup.max_tokens.map(|n| n.max(1));
        let Prepared { prompt, answer, author, params, text, tokens } = prepare(chat, model, &ask)?;
        let message = match ask.into {
            Some(message) => {
                library.set_answer(&ask.chat, message, answer.clone());
                message
            }
            None => library
                .add(&ask.chat, Some(ask.parent), Role::Assistant, author, "", Some(answer.clone()))
                .ok_or("The answer could not be added to this conversation.")?,
        };
        let key = Key { model: model.key(), chat: ask.chat.clone(), mind: ask.mind };
        let turns = &self.turns;
        let session = self.sessions.open(&key, &model.engine, &|k| turns.iter().any(|t| t.key == *k));
        let options = GenerateOptions { max_tokens, end: model.end.clone(), routing: false };
        let watched = model.shape.is_some() && models.get(None).is_some_and(|first| same(&first.engine, &model.engine));
        let copy = if watched { prompt.clone() } else { Vec::new() };
        let said = if watched { library.peek(&ask.chat).map_or_else(Vec::new, |c| said(c, &ask)) } else { Vec::new() };
        let so_far = SoFar { thinking: answer.thinking, text: &text, tokens, thought_seconds: answer.thought_seconds };
        let run = Run::start(session, message, prompt, params, options, so_far);
        self.begun += 1;
        self.turns.push(Turn {
            message,
            key,
            model: model.name.clone(),
            number: self.begun,
            run,
            before: answer.stats,
            answer,
            watched,
            prompt: copy,
            said,
            heard: None,
            then: None,
            ask,
        });
        Ok(())
    }

    /// An answer is over: keeps what it took, and begins what is next.
    fn finish(&mut self, library: &mut Library, models: &Models, mut turn: Turn, end: End) {
        let Ask { chat, .. } = &turn.ask;
        turn.answer.thought_seconds = end.thought_seconds;
        turn.answer.stats = end.stats.map(|stats| add_up(turn.before, stats)).or(turn.before);
        turn.answer.stop = end.stop;
        library.set_answer(chat, turn.message, turn.answer.clone());
        if let Stop::Failed(words) = &turn.answer.stop {
            self.problem(format!("The answer failed: {words}"));
        } else {
            self.notices.push(Notice::Finished { chat: chat.clone(), message: turn.message });
        }
        if self.sessions.get(&turn.key).is_none() && turn.answer.stop == Stop::Cancelled {
            self.notices.push(Notice::Info(format!("{} was let go, so its answer was stopped.", turn.model)));
        }
        let complete = matches!(turn.answer.stop, Stop::End | Stop::Length) && !turn.run.cancelled();
        let next = match turn.then {
            Some(ask) => Some(ask),
            None if complete => library.chat(chat).and_then(|c| next_of(c, &turn.ask, turn.message)),
            None => None,
        };
        if let Some(ask) = next
            && let Err(words) = self.begin(library, models, ask)
        {
            self.problem(words);
        }
    }
}

impl Turn {
    /// Tells the view of experts what came.
    fn tell(&mut self, activity: &mut Activity, tokenizer: Option<&Tokenizer>, batch: &Batch, now: f64) {
        let prompt = std::mem::take(&mut self.prompt);
        if !prompt.is_empty() {
            let prompt = tokenizer.map_or_else(Vec::new, |t| with_texts(t, &prompt));
            activity.begin(self.number, Some(self.ask.chat.clone()), Some(self.message), &prompt, now);
            activity.heard(self.number, &self.ask.chat, &places(&prompt, &std::mem::take(&mut self.said)));
        }
        // What came since the last frame came one after the other, not all at its end.
        let (before, many) = (self.heard.replace(now).unwrap_or(now), batch.heard.len().max(1) as f64);
        for (heard, nth) in batch.heard.iter().zip(1..) {
            let now = before + (now - before) * f64::from(nth) / many;
            match heard {
                Heard::Token { id, text, bytes } => activity.token(self.number, *id, text, bytes.clone(), now),
                Heard::Routed(rows) => activity.routed(self.number, rows, now),
            }
        }
    }

    /// Writes what came into the conversation.
    fn write(&mut self, library: &mut Library, batch: &Batch) {
        if !batch.text.is_empty() {
            library.extend(&self.ask.chat, self.message, &batch.text);
        }
        // Known at once, for the fold over the reasoning; the end of the answer writes it anyway.
        if let Some(seconds) = batch.thought.filter(|_| batch.end.is_none()) {
            self.answer.thought_seconds = Some(seconds);
            library.set_answer(&self.ask.chat, self.message, self.answer.clone());
        }
    }
}
