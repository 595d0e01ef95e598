//! A second mind that reviews, or talks with the first.
//!
//! A person's question is answered by the first mind; then the minds take turns, the second first, as often as the
//! conversation's setup says. In a review, the second checks the first's answer and the first revises it; in a talk, each
//! answers the other.

use crate::chats::{Duet, DuetKind, Message, Setup};
use pleiad_models::Role;

/// Who answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mind {
    /// The one that answers people.
    #[default]
    First,
    /// The one that reviews, or talks with the first.
    Second,
}

impl Mind {
    /// Whose message that is: as its answer says, so that minds may be renamed; without one, by the name it bears.
    pub fn of(message: &Message, names: &Names) -> Self {
        let second = match &message.answer {
            Some(answer) => answer.second,
            None => message.author.as_deref() == Some(names.second.as_str()),
        };
        if second { Self::Second } else { Self::First }
    }

    /// Who has the next turn.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What the minds are called: never the same, never nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The first.
    pub first: String,
    /// The second.
    pub second: String,
}

impl Names {
    /// As they were named; names that are missing, or could not tell them apart, are replaced.
    pub fn of(duet: &Duet) -> Self {
        let named = |name: &str, usual: &str| match name.trim() {
            "" => usual.to_owned(),
            name => name.to_owned(),
        };
        let first = named(&duet.first, "First");
        let mut second = named(&duet.second, "Second");
        if second == first {
            second.push_str(" 2");
        }
        Self { first, second }
    }

    /// A mind's name.
    pub fn get(&self, mind: Mind) -> &str {
        match mind {
            Mind::First => &self.first,
            Mind::Second => &self.second,
        }
    }
}

/// A mind's system prompt; empty: none.
pub fn system(setup: &Setup, mind: Mind, names: &Names) -> String {
    let duet = &setup.duet;
    match mind {
        Mind::First => setup.system.clone(),
        Mind::Second if !duet.system.trim().is_empty() => duet.system.clone(),
        Mind::Second => match duet.kind {
            DuetKind::Review => format!(
                "You are {}. You review the answers of another assistant, {}. Check its last answer for mistakes in facts, \
                 reasoning, arithmetic and code, and for anything important that is missing. If you find mistakes, name each \
                 one and give the corrected answer. If the answer is right, confirm it in one sentence. Be brief.",
                names.second, names.first
            ),
            DuetKind::Talk => format!(
                "You are {}. You talk with another assistant, {}, about what the person asked. Add something of your own in \
                 every turn: a question, an objection, an example or a conclusion. Be brief.",
                names.second, names.first
            ),
        },
    }
}

/// What a mind is asked for after everything that was said, where that is not plain from it. It is part of the prompt only.
/// `turn`: [`turn_of`] its message.
pub fn request(setup: &Setup, mind: Mind, turn: u32, names: &Names) -> Option<String> {
    if turn == 0 || setup.duet.kind == DuetKind::Talk {
        return None;
    }
    Some(match mind {
        Mind::Second => format!("Please review the last answer of {}.", names.first),
        Mind::First => format!("Please revise your answer in the light of the review of {}.", names.second),
    })
}

/// Which turn a message is that follows `path`: 0 for the answer to a person, 1 for what follows that, and so on.
pub fn turn_of<'a>(path: impl DoubleEndedIterator<Item = &'a Message>) -> u32 {
    path.rev().take_while(|m| m.role == Role::Assistant).count() as u32
}

/// Whether the minds go on after turn `turn`.
pub fn goes_on(duet: &Duet, turn: u32) -> bool {
    duet.on && turn < duet.turns
}

#[cfg(test)]
mod tests {
    use super::{super::prompt::tests::message, *};

    fn duet(kind: DuetKind, turns: u32) -> Setup {
        let duet = Duet { on: true, kind, turns, first: "Ada".into(), second: "Bo".into(), ..Duet::default() };
        Setup { system: "Be kind.".into(), duet, ..Setup::default() }
    }

    /// Plays the turns after a question: who speaks, and what is asked of them.
    fn play(setup: &Setup) -> Vec<(String, Option<String>)> {
        let names = Names::of(&setup.duet);
        let mut path = vec![message(0, Role::User, None, "q")];
        let (mut mind, mut turns) = (Mind::First, Vec::new());
        loop {
            let turn = turn_of(path.iter());
            turns.push((names.get(mind).to_owned(), request(setup, mind, turn, &names)));
            let said = message(path.len() as u64, Role::Assistant, Some(names.get(mind)), "a");
            assert_eq!(Mind::of(&said, &names), mind);
            path.push(said);
            if !goes_on(&setup.duet, turn) {
                return turns;
            }
            mind = mind.other();
        }
    }

    #[test]
    fn a_review_is_a_review_and_then_revisions() {
        let review = |turns| play(&duet(DuetKind::Review, turns));
        let (check, revise) =
            ("Please review the last answer of Ada.", "Please revise your answer in the light of the review of Bo.");
        let whole: Vec<(String, Option<String>)> =
            [("Ada", None), ("Bo", Some(check)), ("Ada", Some(revise)), ("Bo", Some(check))]
                .map(|(name, request)| (name.to_owned(), request.map(str::to_owned)))
                .into();
        for turns in 0..4 {
            assert_eq!(review(turns), whole[..=turns as usize], "{turns}");
        }
    }

    #[test]
    fn a_talk_alternates() {
        let talk: Vec<String> = play(&duet(DuetKind::Talk, 4)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(talk, ["Ada", "Bo", "Ada", "Bo", "Ada"]);
        assert!(play(&duet(DuetKind::Talk, 4)).iter().all(|(_, request)| request.is_none()));
        let off = Setup { duet: Duet { on: false, turns: 4, ..Duet::default() }, ..Setup::default() };
        assert_eq!(play(&off).len(), 1);
    }

    #[test]
    fn turns_count_from_the_last_question() {
        let path = [
            message(0, Role::User, None, "q"),
            message(1, Role::Assistant, None, "a"),
            message(2, Role::User, None, "q"),
            message(3, Role::Assistant, None, "a"),
            message(4, Role::Assistant, None, "b"),
        ];
        assert_eq!(turn_of(path.iter()), 2);
        assert_eq!(turn_of(path[..3].iter()), 0);
        assert_eq!(turn_of(path[..2].iter()), 1);
    }

    #[test]
    fn names_tell_minds_apart() {
        let named = |first: &str, second: &str| {
            let names = Names::of(&Duet { first: first.into(), second: second.into(), ..Duet::default() });
            [names.first, names.second]
        };
        assert_eq!(named("Ada", " Bo "), ["Ada", "Bo"]);
        assert_eq!(named("", " "), ["First", "Second"]);
        assert_eq!(named("Ada", "Ada"), ["Ada", "Ada 2"]);
        assert_eq!(named("Second", ""), ["Second", "Second 2"]);
    }

    #[test]
    fn system_prompts() {
        let mut setup = duet(DuetKind::Review, 1);
        let names = Names::of(&setup.duet);
        assert_eq!(system(&setup, Mind::First, &names), "Be kind.");
        assert!(system(&setup, Mind::Second, &names).contains("review the answers of another assistant, Ada"));
        setup.duet.kind = DuetKind::Talk;
        assert!(system(&setup, Mind::Second, &names).contains("You talk with another assistant, Ada"));
        setup.duet.system = "Be harsh.".into();
        assert_eq!(system(&setup, Mind::Second, &names), "Be harsh.");
    }
}
