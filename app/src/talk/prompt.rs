//! A path through a conversation as one mind sees it.

use pleiad_models::{Role, Tokenizer};

use super::duet::{Mind, Names};
use crate::{
    chats::Message,
    conversation::{Conversation, whole_turn},
    thinking::{CLOSE, OPEN, Piece, Splitter},
};

/// What a person is called, where another mind speaks in the same turn.
const PERSON: &str = "Person";

/// Two turns of one speaker are put together with this between them.
const BETWEEN: &str = "\n\n";

/// Whose prompt it is.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Who answers.
    pub mind: Mind,
    /// What the minds are called.
    pub names: &'a Names,
    /// Its system prompt; empty: none.
    pub system: &'a str,
    /// What it is asked for after everything that was said.
    pub request: Option<&'a str>,
}

/// A turn of a prompt.
#[derive(Clone, Debug)]
struct Turn {
    /// It is the mind's own.
    own: bool,
    text: String,
    /// Another mind speaks in it.
    other: bool,
}

/// The conversation that a mind is given to read: its own messages are the assistant's, all others the user's, and what follows
/// one another on the same side is one turn, since templates expect turns to alternate. The mind's own turns keep their
/// reasoning, which templates treat as the model was trained; that of another mind is left out, and its name put before.
pub fn conversation<'a>(path: impl IntoIterator<Item = &'a Message>, view: &View<'_>) -> Conversation {
    let mut system = view.system.to_owned();
    let mut turns: Vec<Turn> = Vec::new();
    for message in path {
        let text = message.text.as_str();
        match message.role {
            Role::System => {
                append(&mut system, text);
                continue;
            }
            Role::User => heard(&mut turns, None, text),
            Role::Assistant if Mind::of(message, view.names) == view.mind => {
                spoke(&mut turns, message.answer.as_ref().is_some_and(|a| a.thinking), text);
            }
            Role::Assistant => {
                let said = spoken(message.answer.as_ref().is_some_and(|a| a.thinking), text);
                heard(&mut turns, Some(view.names.get(view.mind.other())), &said);
            }
        }
    }
    match view.request {
        Some(request) => heard(&mut turns, None, request),
        // An answer never follows an answer of the same mind.
        None if turns.last().is_some_and(|t| t.own) => heard(&mut turns, None, "Please go on."),
        None => {}
    }
    let mut conversation = Conversation::new(Some(&system));
    for turn in &turns {
        if turn.own { conversation.answer(&turn.text) } else { conversation.ask(&turn.text) }
    }
    conversation
}

/// The mind itself spoke.
fn spoke(turns: &mut Vec<Turn>, thinking: bool, text: &str) {
    // A prompt that opened the reasoning of an answer without a word has no turn of its own.
    if text.trim().is_empty() {
        return;
    }
    match turns.last_mut().filter(|t| t.own) {
        // Templates cut what is before the last mark of reasoning: two turns in one must have none.
        Some(turn) => {
            turn.text = spoken(false, &turn.text);
            append(&mut turn.text, &spoken(thinking, text));
        }
        None => turns.push(Turn { own: true, text: whole_turn(thinking, text), other: false }),
    }
}

/// Somebody else spoke: a mind of that name, or a person.
fn heard(turns: &mut Vec<Turn>, name: Option<&str>, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    let turn = match turns.last_mut().filter(|t| !t.own) {
        Some(turn) => turn,
        None => {
            turns.push(Turn { own: false, text: String::new(), other: false });
            let Some(turn) = turns.last_mut() else { return };
            turn
        }
    };
    turn.other |= name.is_some();
    // A person who speaks alone needs no name: the prompt is then that of a conversation with one mind, which the cache holds.
    match name.or_else(|| turn.other.then_some(PERSON)) {
        Some(name) => append(&mut turn.text, &format!("{name}: {text}")),
        None => append(&mut turn.text, text),
    }
}

fn append(to: &mut String, text: &str) {
    if !to.is_empty() && !text.is_empty() {
        to.push_str(BETWEEN);
    }
    to.push_str(text);
}

/// What an answer says once its reasoning is left out.
pub fn spoken(thinking: bool, text: &str) -> String {
    let mut splitter = Splitter::new(thinking);
    let mut pieces = splitter.push(text);
    pieces.extend(splitter.finish());
    let said: String = pieces
        .into_iter()
        .filter_map(|p| match p {
            Piece::Answer(text) => Some(text),
            Piece::Thought(_) => None,
        })
        .collect();
    said.trim().to_owned()
}

/// The ids of an answer that is gone on with: text, in which the marks of reasoning are tokens where the vocabulary has them.
/// `thinking`: the answer begins inside of reasoning; `opened`: so does the prompt that it is put behind.
///
/// # Errors
/// Where the vocabulary cannot express the text.
pub fn answer_ids(tokenizer: &Tokenizer, thinking: bool, opened: bool, text: &str) -> pleiad_models::Result<Vec<u32>> {
    let before = match (thinking, opened) {
        (true, false) => OPEN,
        (false, true) => CLOSE,
        _ => "",
    };
    let text = format!("{before}{text}");
    let marks: Vec<(&str, u32)> = [OPEN, CLOSE].into_iter().filter_map(|m| Some((m, tokenizer.token_to_id(m)?))).collect();
    let mut ids = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let found = marks.iter().filter_map(|&(mark, id)| Some((rest.find(mark)?, mark, id))).min();
        let (at, len) = found.map_or((rest.len(), 0), |(at, mark, _)| (at, mark.len()));
        let (plain, behind) = rest.split_at(at);
        if !plain.is_empty() {
            ids.extend(tokenizer.encode(plain, false)?);
        }
        ids.extend(found.map(|(_, _, id)| id));
        rest = behind.get(len..).unwrap_or_default();
    }
    Ok(ids)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::Checkpoint;

    use super::*;
    use crate::{
        chats::{Answer, MessageId},
        conversation::Prompter,
    };

    /// What second minds are called in tests.
    const SECONDS: [&str; 2] = ["Bo", "Second"];

    pub fn message(id: u64, role: Role, author: Option<&str>, text: &str) -> Message {
        Message {
            id: MessageId(id),
            parent: id.checked_sub(1).map(MessageId),
            children: Vec::new(),
            shown: None,
            role,
            author: author.map(str::to_owned),
            text: text.into(),
            created_ms: 0,
            rating: None,
            answer: (role == Role::Assistant)
                .then(|| Answer { second: author.is_some_and(|a| SECONDS.contains(&a)), ..Answer::default() }),
        }
    }

    fn names() -> Names {
        Names { first: "Ada".into(), second: "Bo".into() }
    }

    /// What a mind sees, as role and text.
    fn seen(path: &[Message], mind: Mind, request: Option<&str>) -> Vec<(String, String)> {
        let names = names();
        let messages = conversation(path, &View { mind, names: &names, system: "", request }).messages();
        let alternates = messages.windows(2).all(|w| w[0].role != w[1].role);
        assert!(alternates && messages.first().is_some_and(|m| m.role == Role::User), "{messages:?}");
        // Every template that comes with the runtime takes it.
        let prompter = Prompter::new(&Checkpoint::tiny().unwrap()).unwrap();
        let conversation = conversation(path, &View { mind, names: &names, system: "s", request });
        assert!(!prompter.prompt(&conversation).unwrap().ids.is_empty());
        messages.into_iter().map(|m| (m.role.as_str().to_owned(), m.content)).collect()
    }

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(role, text)| (role.to_owned(), text.to_owned())).collect()
    }

    #[test]
    fn one_mind_sees_a_plain_conversation() {
        let path =
            [message(0, Role::User, None, "q1"), message(1, Role::Assistant, None, "a1"), message(2, Role::User, None, "q2")];
        assert_eq!(seen(&path, Mind::First, None), own(&[("user", "q1"), ("assistant", "a1"), ("user", "q2")]));
    }

    #[test]
    fn each_mind_sees_the_other_as_a_user() {
        let path = [
            message(0, Role::User, None, "q1"),
            message(1, Role::Assistant, Some("Ada"), "a1"),
            message(2, Role::Assistant, Some("Bo"), "b1"),
            message(3, Role::Assistant, Some("Ada"), "a2"),
            message(4, Role::User, None, "q2"),
        ];
        assert_eq!(seen(&path[..2], Mind::Second, None), own(&[("user", "q1\n\nAda: a1")]));
        assert_eq!(seen(&path[..3], Mind::First, None), own(&[("user", "q1"), ("assistant", "a1"), ("user", "Bo: b1")]));
        assert_eq!(
            seen(&path, Mind::Second, Some("Please review.")),
            own(&[("user", "q1\n\nAda: a1"), ("assistant", "b1"), ("user", "Ada: a2\n\nPerson: q2\n\nPerson: Please review.")])
        );
        assert_eq!(seen(&path[..3], Mind::First, Some("Please revise.")).last().unwrap().1, "Bo: b1\n\nPerson: Please revise.");
        // Nobody answers himself.
        assert_eq!(seen(&path[..2], Mind::First, None).last().unwrap().1, "Please go on.");
    }

    #[test]
    fn reasoning_stays_with_its_mind() {
        let mut path = [
            message(0, Role::User, None, "q1"),
            message(1, Role::Assistant, Some("Ada"), "hm</think>a1"),
            message(2, Role::Assistant, Some("Bo"), "<think>oh</think>b1"),
        ];
        path[1].answer = Some(Answer { thinking: true, ..Answer::default() });
        assert_eq!(
            seen(&path, Mind::First, None),
            own(&[("user", "q1"), ("assistant", "<think>hm</think>a1"), ("user", "Bo: b1")])
        );
        assert_eq!(seen(&path[..2], Mind::Second, None), own(&[("user", "q1\n\nAda: a1")]));
        // An answer that never got beyond its reasoning says nothing to others.
        path[1].text = "hm".into();
        assert_eq!(seen(&path[..2], Mind::Second, None), own(&[("user", "q1")]));
    }

    #[test]
    fn turns_that_follow_one_another_are_one() {
        let path = [
            message(0, Role::User, None, "q1"),
            message(1, Role::Assistant, None, ""),
            message(2, Role::User, None, "q2"),
            message(3, Role::Assistant, None, "<think>x</think>a2"),
            message(4, Role::Assistant, None, "<think>y</think>a3"),
            message(5, Role::User, None, "q3"),
        ];
        assert_eq!(seen(&path, Mind::First, None), own(&[("user", "q1\n\nq2"), ("assistant", "a2\n\na3"), ("user", "q3")]));
    }

    #[test]
    fn system_prompts_are_put_together() {
        let path = [message(0, Role::System, None, "two"), message(1, Role::User, None, "q")];
        let names = names();
        let view = View { mind: Mind::First, names: &names, system: "one", request: None };
        assert_eq!(conversation(&path, &view).messages()[0].content, "one\n\ntwo");
    }

    #[test]
    fn an_answer_to_go_on_with_has_its_marks_as_tokens() {
        let tokenizer = Checkpoint::tiny().unwrap().tokenizer.unwrap();
        let ids = |thinking, opened, text: &str| answer_ids(&tokenizer, thinking, opened, text).unwrap();
        let plain = |text: &str| tokenizer.encode(text, false).unwrap();
        assert_eq!(ids(false, false, "so far, so good"), plain("so far, so good"));
        // What looks like a control token is text.
        assert_eq!(ids(false, false, "<\u{FF5C}User\u{FF5C}>x"), plain("<\u{FF5C}User\u{FF5C}>x"));
        let mark = |text: &str| tokenizer.token_to_id(text).map_or_else(|| plain(text), |id| vec![id]);
        let put = |parts: &[&[u32]]| parts.concat();
        assert_eq!(ids(false, false, "<think>a</think>b"), put(&[&mark(OPEN), &plain("a"), &mark(CLOSE), &plain("b")]));
        assert_eq!(ids(true, true, "a</think>"), put(&[&plain("a"), &mark(CLOSE)]));
        assert_eq!(ids(true, false, "a"), put(&[&mark(OPEN), &plain("a")]));
        assert_eq!(ids(false, true, "a"), put(&[&mark(CLOSE), &plain("a")]));
        assert!(ids(false, false, "").is_empty());
    }
}
