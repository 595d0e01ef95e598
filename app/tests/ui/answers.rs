//! Asking: streaming, stopping, regenerating, branching, rating, two minds.

use egui::Key;
use egui_kittest::kittest::Queryable as _;
use pleiad_app::{
    chats::{Duet, DuetKind, Rating, Stop},
    ui::Action,
};
use pleiad_models::Role;

use crate::stage::{Stage, answered, ask, ask_and_wait, chat, click, ctrl, folder, greedy, last, loaded, ready, shown, until};

#[test]
fn a_question_is_answered_as_the_command_line_answers_it() {
    let mut harness = ready("sum");
    let answer = ask_and_wait(&mut harness, "What is 47 + 85?");
    let answer_line = std::process::Command::new(env!("CARGO_BIN_EXE_pleiad"))
        .args(["run", "What is 47 + 85?", "--temp", "0", "--device", "cpu", "-n", "120", "--json"])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&answer_line.stdout).unwrap();
    assert_eq!(answer, json["text"].as_str().unwrap());
    assert!(answer.contains("132"), "{answer}");
    let record = last(harness.state()).answer.clone().unwrap();
    let stats = record.stats.unwrap();
    assert_eq!((record.stop, stats.generated_tokens), (Stop::End, json["stats"]["generated_tokens"].as_u64().unwrap() as usize));
    // Statistics are shown under it.
    assert!(harness.query_all_by_label_contains("tok/s").next().is_some());
}

#[test]
fn an_answer_can_be_stopped_and_continued() {
    let mut harness = ready("stop");
    ask(&mut harness, "Tell me a long story about a cat.");
    until(&mut harness, "some words", |app| last(app).role == Role::Assistant && last(app).text.len() > 40);
    click(&mut harness, "Stop");
    answered(&mut harness);
    let stopped = last(harness.state()).clone();
    assert_eq!(stopped.answer.clone().unwrap().stop, Stop::Cancelled);
    click(&mut harness, "Continue answer");
    answered(&mut harness);
    let whole = last(harness.state());
    assert_eq!(whole.id, stopped.id);
    assert!(whole.text.starts_with(&stopped.text) && whole.text.len() > stopped.text.len());
    assert_ne!(whole.answer.clone().unwrap().stop, Stop::Cancelled);
    // Greedy: what was stopped and continued is what would have been said in one go.
    let story = whole.text.clone();
    click(&mut harness, "Regenerate answer");
    answered(&mut harness);
    let again = last(harness.state()).text.clone();
    let same = story.chars().zip(again.chars()).take_while(|(a, b)| a == b).count();
    assert!(same >= stopped.text.chars().count(), "{story}\n{again}");
}

#[test]
fn regenerating_and_editing_make_siblings_that_can_be_browsed() {
    let mut harness = ready("branches");
    let first = ask_and_wait(&mut harness, "What is 12 + 13?");
    click(&mut harness, "Regenerate answer");
    answered(&mut harness);
    assert_eq!(last(harness.state()).text, first, "greedy");
    let (all, at) = {
        let id = last(harness.state()).id;
        let (all, at) = chat(harness.state()).tree.siblings(id);
        (all.to_vec(), at)
    };
    assert_eq!((all.len(), at), (2, 1));
    click(&mut harness, "Previous version");
    assert_eq!(last(harness.state()).id, all[0]);

    // Another question in the place of the first.
    ctrl(&mut harness, Key::ArrowUp);
    let editor = harness.get_by_label("Edit message");
    editor.set_text_value_accesskit("What is 20 + 30?");
    harness.run_steps(2);
    click(&mut harness, "Send as a branch");
    answered(&mut harness);
    assert!(last(harness.state()).text.contains("50"), "{}", last(harness.state()).text);
    let texts: Vec<_> = shown(harness.state()).iter().map(|m| m.text.clone()).collect();
    assert_eq!(texts[0], "What is 20 + 30?");
    // Both questions and three answers are there.
    assert_eq!(chat(harness.state()).tree.len(), 5);
}

#[test]
fn ratings_and_everything_else_are_there_after_a_restart() {
    let data = folder("restart");
    let mut harness = Stage::default().open(&data);
    loaded(&mut harness);
    let answer = ask_and_wait(&mut harness, "What is the capital of France?");
    click(&mut harness, "Good answer");
    assert_eq!(last(harness.state()).rating, Some(Rating::Good));
    let chat_id = harness.state().open_chat().unwrap().clone();
    let stats = last(harness.state()).answer.clone().unwrap().stats;
    harness.run_steps(2);
    drop(harness);

    let mut harness = Stage { setup: None, ..Stage::default() }.open(&data);
    loaded(&mut harness);
    let id = harness.state().library().summaries()[0].id.clone();
    assert_eq!(id, chat_id);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::OpenChat(id));
    harness.run_steps(3);
    let message = last(harness.state());
    assert_eq!(
        (message.text.clone(), message.rating, message.answer.clone().unwrap().stats),
        (answer, Some(Rating::Good), stats)
    );
    assert_eq!(chat(harness.state()).setup, greedy());
    // The conversation goes on.
    let more = ask_and_wait(&mut harness, "What is 1 + 1?");
    assert!(!more.is_empty() && shown(harness.state()).len() == 4);
}

#[test]
fn two_minds_take_turns_that_are_attributed_and_can_be_stopped() {
    let duet = Duet { on: true, kind: DuetKind::Talk, turns: 3, first: "Ada".into(), second: "Blaise".into(), ..Duet::default() };
    let setup = pleiad_app::chats::Setup { duet, max_tokens: Some(300), ..greedy() };
    let mut harness = Stage { setup: Some(setup.clone()), ..Stage::default() }.open(&folder("duet"));
    loaded(&mut harness);
    ask(&mut harness, "Tell me a short story about a dog.");
    until(&mut harness, "all turns", |app| !app.busy() && shown(app).len() == 5);
    let authors: Vec<_> = shown(harness.state()).iter().map(|m| m.author.clone()).collect();
    let named = |n: &str| Some(n.to_owned());
    assert_eq!(authors[1..], [named("Ada"), named("Blaise"), named("Ada"), named("Blaise")]);

    let mut many = setup;
    many.duet.turns = 20;
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::SetSetup(many));
    ask(&mut harness, "Go on.");
    until(&mut harness, "the second turn", |app| shown(app).len() >= 8);
    click(&mut harness, "Stop");
    until(&mut harness, "silence", |app| !app.busy());
    let turns = shown(harness.state()).len();
    harness.run_steps(20);
    assert_eq!(shown(harness.state()).len(), turns);
}

#[test]
fn a_review_follows_the_answer() {
    let duet = Duet { on: true, kind: DuetKind::Review, turns: 2, ..Duet::default() };
    let setup = pleiad_app::chats::Setup { duet, max_tokens: Some(300), ..greedy() };
    let mut harness = Stage { setup: Some(setup), ..Stage::default() }.open(&folder("review"));
    loaded(&mut harness);
    ask(&mut harness, "What is 3 + 4?");
    until(&mut harness, "the review and the revised answer", |app| !app.busy() && shown(app).len() == 4);
    let authors: Vec<_> = shown(harness.state()).iter().filter_map(|m| m.author.clone()).collect();
    assert_eq!(authors, ["First", "Second", "First"]);
}
