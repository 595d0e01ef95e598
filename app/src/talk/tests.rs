//! From a question to an answer in a conversation, with the embedded model.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pleiad_models::Role;

use super::{Notice, Talker, live::Stage};
use crate::{
    activity::{Activity, Phase},
    chats::{ChatId, Duet, DuetKind, Library, Message, MessageId, Sampling, Setup, Stop, storage::Memory},
    loading::{Models, Source},
    settings::LoadSettings,
};

struct World {
    library: Library,
    models: Models,
    talker: Talker,
    activity: Option<Activity>,
    chat: ChatId,
    notices: Vec<Notice>,
    started: Instant,
}

impl World {
    /// A conversation with that setup. Answers are greedy and short unless it says otherwise.
    fn new(setup: Setup, loaded: bool) -> Self {
        let mut library = Library::open(Box::new(Memory::default()));
        let mut setup = setup;
        setup.max_tokens = setup.max_tokens.or(Some(12));
        setup.sampling = Sampling { temperature: Some(0.0), ..setup.sampling };
        let chat = library.create(setup);
        let models = Models::new(Arc::new(|| {}));
        let (talker, notices, started) = (Talker::default(), Vec::new(), Instant::now());
        let mut world = Self { library, models, talker, activity: None, chat, notices, started };
        if loaded {
            world.load();
        }
        world
    }

    fn load(&mut self) {
        self.load_from(Source::Tiny);
        let shape = self.models.get(None).unwrap().shape.clone().unwrap();
        self.activity = Some(Activity::new(shape, Activity::TOKENS));
    }

    /// Loads a model beside those that are there.
    fn load_from(&mut self, source: Source) {
        let settings = LoadSettings { device: "cpu".into(), threads: Some(1), ..LoadSettings::default() };
        let before = self.models.loaded().len();
        self.models.load(source, &settings, true);
        self.until("a model", |w| {
            let news = w.models.poll();
            assert!(!news.iter().any(|n| matches!(n, crate::loading::models::News::Failed { .. })), "{news:?}");
            w.models.loaded().len() > before
        });
    }

    fn poll(&mut self) {
        let now = self.started.elapsed().as_secs_f64();
        self.notices.extend(self.talker.poll(&mut self.library, &self.models, self.activity.as_mut(), now));
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !done(self) {
            assert!(since.elapsed() < Duration::from_secs(60), "no {what}: {:?}", self.notices);
            self.poll();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn finish(&mut self) {
        self.until("end", |w| !w.talker.busy());
        assert!(self.talker.live(&self.chat).is_none() && self.talker.chats().is_empty());
    }

    fn send(&mut self, text: &str) {
        self.talker.send(&mut self.library, &self.models, &self.chat, text);
    }

    fn say(&mut self, text: &str) {
        self.send(text);
        self.finish();
    }

    /// What is shown.
    fn path(&mut self) -> Vec<Message> {
        let tree = &self.library.chat(&self.chat).unwrap().tree;
        tree.path().into_iter().map(|id| tree.get(id).unwrap().clone()).collect()
    }

    fn get(&mut self, id: MessageId) -> Message {
        self.library.chat(&self.chat).unwrap().tree.get(id).unwrap().clone()
    }

    fn problems(&self) -> Vec<&str> {
        self.notices
            .iter()
            .filter_map(|n| match n {
                Notice::Problem(words) => Some(words.as_str()),
                _ => None,
            })
            .collect()
    }

    fn roles(&mut self) -> String {
        self.path().iter().map(|m| if m.role == Role::User { 'u' } else { 'a' }).collect()
    }
}

fn duet(kind: DuetKind, turns: u32) -> Setup {
    let duet = Duet { on: true, kind, turns, first: "Ada".into(), second: "Bo".into(), ..Duet::default() };
    Setup { duet, ..Setup::default() }
}

#[test]
fn a_question_is_answered_and_the_cache_is_reused() {
    let mut w = World::new(Setup::default(), true);
    w.say("What is the capital of France?");
    assert_eq!(w.roles(), "ua");
    let first = w.path()[1].clone();
    let answer = first.answer.unwrap();
    let stats = answer.stats.unwrap();
    assert!(!first.text.is_empty() && matches!(answer.stop, Stop::Length | Stop::End), "{answer:?}");
    assert_eq!((answer.model.is_empty(), answer.device.is_empty(), first.author), (false, false, None));
    assert_eq!(w.notices, [Notice::Finished { chat: w.chat.clone(), message: first.id }]);
    // The view of experts knows every token, where its text is, and what it chose.
    let tokens = w.activity.as_ref().unwrap().tokens();
    let rows = || tokens.range().filter_map(|n| tokens.get(n));
    let prompt: String = rows().filter(|t| t.phase == Phase::Prompt).map(|t| t.text.as_str()).collect();
    assert!(prompt.contains("What is the capital of France?"), "{prompt}");
    // What a person wrote is linked with the tokens that were read of it.
    let question = w.path()[0].clone();
    let tokens = w.activity.as_ref().unwrap().tokens();
    let rows = || tokens.range().filter_map(|n| tokens.get(n));
    let asked: Vec<_> = rows().filter(|t| t.message == Some((w.chat.clone(), question.id))).collect();
    assert!(asked.iter().all(|t| t.phase == Phase::Prompt && t.text.contains(&question.text[t.bytes.clone()])), "{asked:?}");
    assert_eq!(asked.iter().map(|t| &question.text[t.bytes.clone()]).collect::<String>(), question.text);
    let written: Vec<_> = rows().filter(|t| t.phase == Phase::Answer).collect();
    assert!(written.len() >= stats.generated_tokens - 1);
    assert!(written.iter().all(|t| t.message == Some((w.chat.clone(), first.id)) && t.text == first.text[t.bytes.clone()]));
    // The last token of all is never read, so it chooses nothing.
    assert!(rows().take(tokens.len() - 1).all(|t| !t.choices.is_empty()));
    w.say("And of Italy?");
    assert_eq!(w.roles(), "uaua");
    let second = w.path()[3].answer.clone().unwrap().stats.unwrap();
    assert!(second.reused_tokens >= stats.prompt_tokens, "{second:?}");
}

#[test]
fn a_regenerated_answer_is_a_sibling() {
    let mut w = World::new(Setup::default(), true);
    w.say("Count to ten.");
    let first = w.path()[1].clone();
    w.talker.regenerate(&mut w.library, &w.models, &w.chat, first.id);
    w.finish();
    let again = w.path()[1].clone();
    assert_ne!(first.id, again.id);
    assert_eq!((first.parent, &first.text), (again.parent, &again.text), "greedy answers are the same");
    let stats = again.answer.unwrap().stats.unwrap();
    assert_eq!(stats.reused_tokens, stats.prompt_tokens - 1);
    // Of a person's message: it is answered.
    w.talker.regenerate(&mut w.library, &w.models, &w.chat, first.parent.unwrap());
    w.finish();
    assert_eq!(w.library.chat(&w.chat).unwrap().tree.siblings(first.id).0.len(), 3);
}

#[test]
fn an_edited_question_is_answered_and_an_edited_answer_stays() {
    let mut w = World::new(Setup::default(), true);
    w.say("Count to ten.");
    let [question, answer] = w.path().try_into().unwrap();
    w.talker.edit(&mut w.library, &w.models, &w.chat, question.id, "Count to five.");
    w.finish();
    assert_eq!((w.roles().as_str(), w.path()[0].text.as_str()), ("ua", "Count to five."));
    assert_eq!(w.get(question.id).text, "Count to ten.");
    w.talker.edit(&mut w.library, &w.models, &w.chat, answer.id, "1 2 3");
    assert!(!w.talker.busy());
    let tree = &w.library.chat(&w.chat).unwrap().tree;
    let (siblings, _) = tree.siblings(answer.id);
    let edited = tree.get(*siblings.last().unwrap()).unwrap();
    let (new, old) = (edited.answer.clone().unwrap(), answer.answer.unwrap());
    assert_eq!((siblings.len(), edited.text.as_str(), new.stop, new.stats), (2, "1 2 3", Stop::End, old.stats));
}

#[test]
fn an_answer_that_is_stopped_can_go_on() {
    let mut w = World::new(Setup { max_tokens: Some(300), ..Setup::default() }, true);
    w.say("Tell a long story.");
    let whole = w.path()[1].clone();
    w.talker.regenerate(&mut w.library, &w.models, &w.chat, whole.id);
    assert_eq!(w.talker.live(&w.chat).map(|l| l.stage), Some(Stage::Waiting));
    assert_eq!(w.talker.chats(), [w.chat.clone()]);
    w.until("token", |w| w.talker.live(&w.chat).is_some_and(|l| l.tokens > 0));
    w.talker.stop(&w.chat);
    assert_eq!(w.talker.live(&w.chat).unwrap().stage, Stage::Stopping);
    w.finish();
    let cut = w.path()[1].clone();
    let stopped = cut.answer.unwrap();
    if stopped.stop != Stop::Cancelled {
        // It was over before it could be stopped.
        assert_eq!(cut.text, whole.text);
        return;
    }
    assert!(whole.text.starts_with(&cut.text) && !cut.text.is_empty());
    w.talker.go_on(&mut w.library, &w.models, &w.chat, cut.id);
    w.finish();
    let on = w.get(cut.id);
    let answer = on.answer.unwrap();
    assert!(on.text.len() > cut.text.len() && on.text.starts_with(&cut.text));
    assert!(answer.stats.unwrap().generated_tokens > stopped.stats.unwrap().generated_tokens);
    assert!(matches!(answer.stop, Stop::Length | Stop::End | Stop::Context), "{answer:?}");
}

#[test]
fn a_question_in_the_middle_of_an_answer_stops_it_and_is_answered() {
    let mut w = World::new(Setup { max_tokens: Some(400), ..Setup::default() }, true);
    w.send("Tell a long story.");
    w.until("token", |w| w.talker.live(&w.chat).is_some_and(|l| l.tokens > 0));
    w.send("No, a short one.");
    w.finish();
    assert_eq!(w.roles(), "uaua");
    // Stopped while the second waits: nothing more is written.
    w.send("And another.");
    w.send("And one more.");
    w.talker.stop(&w.chat);
    w.finish();
    assert_eq!(w.path().last().unwrap().role, Role::User);
}

#[test]
fn a_review_and_a_revision_are_attributed() {
    let mut w = World::new(duet(DuetKind::Review, 2), true);
    w.say("What is the capital of France?");
    let authors: Vec<_> = w.path().into_iter().map(|m| m.author).collect();
    assert_eq!(authors, [None, Some("Ada".into()), Some("Bo".into()), Some("Ada".into())], "{:?}", w.notices);
    assert!(w.problems().is_empty());
    // A review that is made anew is followed by another revision, on a branch of its own.
    let review = w.path()[2].clone();
    w.talker.regenerate(&mut w.library, &w.models, &w.chat, review.id);
    w.finish();
    let path = w.path();
    assert_eq!((path.len(), path[2].author.as_deref()), (4, Some("Bo")));
    assert_ne!(path[2].id, review.id);
}

#[test]
fn a_talk_can_be_stopped() {
    let mut w = World::new(duet(DuetKind::Talk, 1000), true);
    w.send("What is the best colour?");
    w.until("third turn", |w| w.path().len() > 3);
    w.talker.stop(&w.chat);
    w.finish();
    let authors: Vec<_> = w.path().into_iter().skip(1).map(|m| m.author.unwrap()).collect();
    assert!(authors.iter().enumerate().all(|(i, a)| a == ["Ada", "Bo"][i % 2]), "{authors:?}");
    assert!(authors.len() < 1000);
}

#[test]
fn a_second_mind_without_its_model_is_told_and_the_answer_stays() {
    let mut setup = duet(DuetKind::Review, 1);
    setup.duet.model = Some("/models/other.gguf".into());
    let mut w = World::new(setup, true);
    w.say("What is the capital of France?");
    assert_eq!(w.roles(), "ua");
    assert!(matches!(w.problems()[..], [words] if words.contains("Bo") && words.contains("other.gguf")), "{:?}", w.notices);
}

#[test]
fn a_second_mind_may_be_another_model() {
    let path = std::env::temp_dir().join(format!("pleiad-second-mind-{}.gguf", std::process::id()));
    std::fs::write(&path, pleiad_models::TINY_GGUF).unwrap();
    let source = Source::Path(path.clone());
    let mut setup = duet(DuetKind::Review, Duet::default().turns);
    setup.duet.model = Some(source.key());
    let mut w = World::new(setup, true);
    w.load_from(source.clone());
    w.say("What is the capital of France?");
    let said: Vec<_> = w.path().into_iter().skip(1).map(|m| (m.author.unwrap(), m.answer.unwrap())).collect();
    // By itself a review is followed by the correction that it asks for.
    let authors: Vec<_> = said.iter().map(|(author, a)| (author.as_str(), a.second)).collect();
    assert_eq!(authors, [("Ada", false), ("Bo", true), ("Ada", false)], "{:?}", w.notices);
    assert!(w.problems().is_empty());
    // Each has a cache of its own: what the first has read is new to the second, and is still there for its own next turn.
    let reused: Vec<_> = said.iter().map(|(_, a)| a.stats.unwrap().reused_tokens).collect();
    assert!(reused[1] == 0 && reused[2] > 0, "{reused:?}");
    // Once it is let go, its turn is told of and the answer stays.
    w.models.unload(&source.key());
    w.say("And of Italy?");
    assert_eq!(w.roles(), "uaaaua");
    assert!(matches!(w.problems()[..], [words] if words.contains("Bo")), "{:?}", w.notices);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_question_waits_for_a_model_and_for_a_person() {
    let mut w = World::new(Setup::default(), false);
    w.send("Is anybody there?");
    w.poll();
    assert_eq!((w.roles().as_str(), w.problems().len(), w.talker.busy()), ("u", 1, false));
    w.load();
    w.poll();
    assert!(!w.talker.busy());
    let question = w.path()[0].id;
    w.talker.answer(&mut w.library, &w.models, &w.chat, question);
    w.finish();
    assert_eq!(w.roles(), "ua");
}

#[test]
fn a_model_that_is_let_go_ends_its_answers() {
    let mut w = World::new(Setup { max_tokens: Some(400), ..Setup::default() }, true);
    w.send("Tell a long story.");
    w.until("token", |w| w.talker.live(&w.chat).is_some_and(|l| l.tokens > 0));
    w.models.unload("tiny");
    w.finish();
    let answer = w.path()[1].answer.clone().unwrap();
    assert!(matches!(answer.stop, Stop::Cancelled | Stop::Length | Stop::End | Stop::Context), "{answer:?}");
}

#[test]
fn conversations_are_answered_side_by_side() {
    let mut w = World::new(Setup::default(), true);
    let other = w.library.create(Setup { max_tokens: Some(8), ..Setup::default() });
    w.send("One.");
    w.talker.send(&mut w.library, &w.models, &other, "Two.");
    assert_eq!(w.talker.chats().len(), 2);
    w.talker.survey(&w.models, "code", "fn main() {}");
    assert_eq!(w.talker.surveying(), Some(("code", 0)));
    w.finish();
    assert_eq!(w.roles(), "ua");
    assert_eq!(w.library.chat(&other).unwrap().tree.path().len(), 2);
    assert_eq!(w.talker.surveyed().len(), 1);
}

#[test]
fn a_prompt_that_does_not_fit_is_told() {
    let mut w = World::new(Setup::default(), true);
    w.say(&"word ".repeat(3 * w.models.get(None).unwrap().context()));
    assert_eq!(w.roles(), "u");
    assert!(matches!(w.problems()[..], [words] if words.contains("context")));
}

#[test]
fn a_conversation_that_is_deleted_takes_its_answer_with_it() {
    let mut w = World::new(Setup { max_tokens: Some(400), ..Setup::default() }, true);
    w.send("Tell a long story.");
    w.until("token", |w| w.talker.live(&w.chat).is_some_and(|l| l.tokens > 0));
    w.library.delete(&w.chat);
    w.until("end", |w| !w.talker.busy());
    assert!(w.problems().is_empty());
}
