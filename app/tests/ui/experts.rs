//! The experts beside the conversation: what the grid counts is what the engine routed, and words and tokens are linked.

use egui::Key;
use egui_kittest::kittest::Queryable as _;
use pleiad_app::{
    activity::{Cell, Home, Phase},
    ui::{Action, Page},
};

use crate::stage::{Stage, ask_and_wait, ctrl, folder, last, loaded, ready, until};

#[test]
fn the_grid_counts_what_was_routed() {
    let mut harness = ready("counts");
    let before = harness.render().unwrap();
    ask_and_wait(&mut harness, "What is 47 + 85?");
    let activity = harness.state().activity().unwrap();
    let shape = activity.shape().clone();
    let stats = last(harness.state()).answer.as_ref().unwrap().stats.unwrap();
    // The last token sampled is not computed; the prompt is, but for what the cache held.
    let computed = stats.prompt_tokens - stats.reused_tokens + stats.generated_tokens - 1;
    for (row, counts) in activity.sums().counts().chunks(shape.experts).enumerate() {
        let sum: u64 = counts.iter().sum();
        // Steps submitted ahead of an end token may have been routed, and are not counted as generated.
        assert!(
            sum.is_multiple_of(shape.top_k as u64) && (sum / shape.top_k as u64).abs_diff(computed as u64) <= 1,
            "row {row}: {sum}"
        );
    }
    assert_ne!(before.as_raw(), harness.render().unwrap().as_raw());
    assert!(harness.query_all_by_label_contains("Experts,").next().is_some());
}

#[test]
fn tokens_know_their_words() {
    let mut harness = ready("words");
    let answer = ask_and_wait(&mut harness, "What is the capital of France?");
    let message = last(harness.state()).id;
    let activity = harness.state().activity().unwrap();
    let mut spelt = String::new();
    let tokens = activity.tokens();
    for (_, row) in tokens.iter(tokens.range()).filter(|(_, t)| t.phase == Phase::Answer) {
        let (_, of) = row.message.clone().unwrap();
        assert_eq!(of, message);
        assert_eq!(answer[row.bytes.clone()], row.text);
        spelt.push_str(&row.text);
    }
    assert_eq!(spelt, answer);
}

#[test]
fn hovering_a_word_lights_its_experts() {
    let mut harness = ready("hover");
    let answer = ask_and_wait(&mut harness, "What is the capital of France?");
    let word = answer.split_whitespace().next().unwrap().to_owned();
    let label = harness.query_all_by_label_contains(&word).find(|n| n.rect().width() > 20.0).unwrap();
    let at = label.rect().left_top() + egui::vec2(8.0, 8.0);
    harness.hover_at(at);
    harness.run_steps(4);
    let pointed = harness.state().pointed().cloned().expect("nothing is pointed at");
    assert!(answer[pointed.bytes.clone()].contains(word.trim_matches(|c: char| !c.is_alphanumeric())), "{pointed:?} in {answer}");
}

#[test]
fn hovering_a_word_of_the_question_lights_the_experts_that_read_it() {
    let mut harness = ready("hover-question");
    let question = "What is the capital of France?";
    ask_and_wait(&mut harness, question);
    // The title has the same words; the bubble is in the conversation.
    let label = harness.query_all_by_label(question).map(|n| n.rect()).find(|r| r.left() > 260.0 && r.top() > 45.0).unwrap();
    harness.hover_at(label.left_center() + egui::vec2(12.0, 0.0));
    harness.run_steps(4);
    let pointed = harness.state().pointed().cloned().expect("nothing is pointed at");
    let asked = crate::stage::shown(harness.state())[0].id;
    assert_eq!((pointed.message, &question[pointed.bytes.clone()]), (asked, "What"));
    let tokens = harness.state().activity().unwrap().tokens();
    let token = tokens.under(Some(&pointed.chat), pointed.message, pointed.bytes.start).and_then(|n| tokens.get(n)).unwrap();
    assert!(token.phase == Phase::Prompt && !token.choices.is_empty() && token.text.contains('W'), "{token:?}");
}

#[test]
fn prompt_packs_are_read_and_compared() {
    let mut harness = ready("packs");
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::Go(Page::Experts));
    harness.run_steps(3);
    let texts = vec![
        ("Code".to_owned(), "fn main() { println!(\"{}\", 1 + 1); }".to_owned()),
        ("Sums".to_owned(), "What is 2 + 2?".to_owned()),
    ];
    let before: u64 = total(harness.state());
    harness.state_mut().give(&ctx, Action::Survey(texts));
    until(&mut harness, "the packs", |app| app.surveys_done() == 2);
    // Reading packs is not counted as what the conversation did.
    assert_eq!(total(harness.state()), before);
}

fn total(app: &pleiad_app::ui::App) -> u64 {
    app.activity().unwrap().sums().counts().iter().sum()
}

#[test]
fn every_way_of_showing_them_draws() {
    let mut harness = ready("modes");
    ask_and_wait(&mut harness, "What is 3 + 5?");
    let mut pictures = Vec::new();
    for _ in 0..8 {
        harness.key_press(Key::F6);
        harness.run_steps(4);
        pictures.push(harness.render().unwrap().into_raw());
    }
    let distinct = pictures.iter().enumerate().filter(|(i, p)| pictures[..*i].iter().all(|o| o != *p)).count();
    assert!(distinct >= 7, "{distinct} of 8 look different");
    ctrl(&mut harness, Key::E);
    assert!(harness.query_all_by_label_contains("Experts,").next().is_none());
}

/// The index of lavapipe, which is there wherever tests run as they should.
fn lavapipe() -> Option<usize> {
    let adapters = pollster::block_on(pleiad_runtime::gpu::adapters::enumerate());
    adapters.iter().position(|a| a.description.name.contains("llvmpipe"))
}

#[test]
fn experts_that_do_not_fit_are_shown_where_they_are() {
    let Some(index) = lavapipe() else {
        println!("SKIPPED experts_that_do_not_fit_are_shown_where_they_are: there is no lavapipe");
        return;
    };
    let mut stage = Stage::default();
    stage.settings.load.device = format!("wgpu:{index}");
    stage.settings.load.memory_budget = Some(30 << 20);
    let mut harness = stage.open(&folder("budget"));
    loaded(&mut harness);
    let answer = ask_and_wait(&mut harness, "What is 2 + 3?");
    assert!(answer.contains('5'), "{answer}");
    let activity = harness.state().activity().unwrap();
    let shape = activity.shape();
    let cells = (0..shape.rows.len()).flat_map(|row| (0..shape.experts).map(move |expert| Cell { row, expert }));
    let homes: Vec<_> = cells.filter_map(|cell| activity.home(cell)).collect();
    // What moved for the latest token may have one of them or have gone by.
    let count = |home| homes.iter().filter(|h| **h == home).count();
    let report = harness.state().models().get(None).unwrap().engine.experts().unwrap();
    let (there, moving, slots) = (count(Home::Device), count(Home::Moving), report.slots.iter().sum::<usize>());
    assert!(slots < homes.len(), "everything fits");
    assert!(homes.len() == shape.cells() && there <= slots && slots <= there + moving, "{there} there, {moving} moving");
    let device = last(harness.state()).answer.as_ref().unwrap().stats.unwrap().decode_device;
    assert!(device.expert_hits > 0 && device.expert_misses > 0, "{device:?}");
    assert!(harness.query_all_by_label_contains("expert hits").next().is_some());
}
