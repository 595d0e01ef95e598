#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use egui::{Event, ImeEvent, Key, Modifiers, MouseWheelSource, MouseWheelUnit, Theme as Mode, TouchPhase, Vec2, accesskit, vec2};
use egui_kittest::{
    Harness,
    kittest::{NodeT as _, Queryable as _},
};

use super::*;
use crate::{
    chats::{Answer, Message, Rating, Setup, Stop, Tree},
    talk::live::Stage,
};

/// What a test draws.
struct World {
    chat: Chat,
    messages: Vec<(Message, Vec<MessageId>)>,
    live: Option<Live>,
    model: Option<&'static str>,
    loading: Option<Option<f32>>,
    problem: Option<&'static str>,
    lit: Option<Span>,
    settings: Settings,
    view: ChatView,
    out: Vec<Action>,
}

fn message(id: u64, role: Speaker, text: &str) -> (Message, Vec<MessageId>) {
    let answer = (role == Speaker::Assistant).then(|| Answer { model: "tiny".into(), stop: Stop::End, ..Answer::default() });
    let message = Message {
        id: MessageId(id),
        parent: id.checked_sub(1).map(MessageId),
        children: Vec::new(),
        shown: None,
        role,
        author: None,
        text: text.into(),
        created_ms: 0,
        rating: None,
        answer,
    };
    (message, vec![MessageId(id)])
}

fn world(messages: Vec<(Message, Vec<MessageId>)>) -> World {
    let chat = Chat {
        id: ChatId("a".into()),
        title: String::new(),
        pinned: false,
        created_ms: 0,
        updated_ms: 0,
        setup: Setup::default(),
        tree: Tree::default(),
    };
    World {
        chat,
        messages,
        live: None,
        model: Some("tiny"),
        loading: None,
        problem: None,
        lit: None,
        settings: Settings::default(),
        view: ChatView::default(),
        out: Vec::new(),
    }
}

fn live(id: u64, stage: Stage) -> Live {
    Live { message: MessageId(id), stage, tokens: 3, speed: Some(12.5), first_token: Some(0.2), context: 1234 }
}

fn open_in(size: Vec2, mode: Mode, world: World) -> Harness<'static, World> {
    let builder = Harness::builder().with_size(size).with_theme(mode).with_max_steps(30).allow_missing_glyphs();
    let builder = builder.with_context_setup(|ctx| Theme::apply(ctx, &Settings::default()));
    let mut harness = builder.build_ui_state(
        |ui, w: &mut World| {
            let World { chat, messages, live, model, loading, problem, lit, settings, view, out } = w;
            let cx = ChatContext {
                chat: Some(chat),
                live: live.as_ref(),
                model: *model,
                context: 8192,
                loading: *loading,
                problem: *problem,
                lit: lit.as_ref(),
                settings,
            };
            let place = |id: MessageId, all: &[MessageId]| all.iter().position(|&s| s == id).unwrap_or(0);
            let shown: Vec<Shown<'_>> =
                messages.iter().map(|(m, siblings)| Shown { message: m, siblings, index: place(m.id, siblings) }).collect();
            view.show_path(ui, &cx, &shown, out);
        },
        world,
    );
    harness.run();
    harness
}

fn open(world: World) -> Harness<'static, World> {
    open_in(vec2(700.0, 500.0), Mode::Dark, world)
}

fn question_and_answer() -> Vec<(Message, Vec<MessageId>)> {
    let mut all = vec![message(1, Speaker::User, "What is 47 + 85?"), message(2, Speaker::Assistant, "It is **132**.")];
    all[1].1 = vec![MessageId(7), MessageId(2), MessageId(9)];
    all
}

fn take(harness: &mut Harness<'_, World>) -> Vec<Action> {
    std::mem::take(&mut harness.state_mut().out)
}

fn click(harness: &mut Harness<'_, World>, name: &str) -> Vec<Action> {
    harness.get_by_label(name).click();
    harness.run();
    take(harness)
}

fn long(messages: u64) -> Vec<(Message, Vec<MessageId>)> {
    let text = "Some words of a paragraph, *with* marks and `code`.\n\n- one\n- two\n\n```rust\nlet x = 1;\n```\n\n";
    (0..messages)
        .map(|i| match i % 2 {
            0 => message(i, Speaker::User, &format!("Question {i}")),
            _ => message(i, Speaker::Assistant, &text.repeat(1 + (i % 4) as usize)),
        })
        .collect()
}

fn wheel(harness: &mut Harness<'_, World>, y: f32) {
    harness.hover_at(pos2(300.0, 200.0));
    harness.event(Event::MouseWheel {
        unit: MouseWheelUnit::Point,
        delta: vec2(0.0, y),
        phase: TouchPhase::Move,
        source: MouseWheelSource::Unknown,
        modifiers: Modifiers::NONE,
    });
    harness.run();
}

#[test]
fn buttons_ask_for_what_they_say() {
    let mut h = open(world(question_and_answer()));
    let id = MessageId(2);
    assert_eq!(click(&mut h, "Copy answer"), [Action::Copy("It is **132**.".into())]);
    assert_eq!(click(&mut h, "Copy message"), [Action::Copy("What is 47 + 85?".into())]);
    assert_eq!(click(&mut h, "Good answer"), [Action::Rate(id, Some(Rating::Good))]);
    h.state_mut().messages[1].0.rating = Some(Rating::Bad);
    h.run();
    assert_eq!(h.get_by_label("Bad answer").accesskit_node().toggled(), Some(accesskit::Toggled::True));
    assert_eq!(click(&mut h, "Bad answer"), [Action::Rate(id, None)]);
    assert_eq!(click(&mut h, "Regenerate answer"), [Action::Regenerate(id)]);
    assert_eq!(click(&mut h, "Previous version"), [Action::Show(MessageId(7))]);
    assert_eq!(click(&mut h, "Next version"), [Action::Show(MessageId(9))]);
    assert!(h.query_by_label("Continue answer").is_none());
    for stop in [Stop::Length, Stop::Cancelled, Stop::Context, Stop::Unfinished, Stop::Failed("no memory".into())] {
        h.state_mut().messages[1].0.answer.as_mut().unwrap().stop = stop;
        h.run();
        assert_eq!(click(&mut h, "Continue answer"), [Action::Continue(id)]);
    }
    assert!(h.query_by_label("no memory").is_some());
    h.state_mut().live = Some(live(2, Stage::Writing));
    h.run();
    assert!(h.query_by_label("Continue answer").is_none() && h.query_by_label("Good answer").is_none());
    assert_eq!(click(&mut h, "Stop"), [Action::Stop]);
}

#[test]
fn a_message_is_edited_in_its_place() {
    let mut h = open(world(question_and_answer()));
    click(&mut h, "Edit message");
    assert!(h.get_by_label("Edit message").is_focused() && h.state().view.takes_escape());
    h.get_by_label("Edit message").type_text("!");
    h.run();
    assert_eq!(click(&mut h, "Send as a branch"), [Action::Edit(MessageId(1), "What is 47 + 85?!".into())]);
    assert!(!h.state().view.takes_escape());
    h.state_mut().view.edit = Some(MessageId(2));
    h.run();
    assert_eq!(h.get_by_label("Edit answer").value().unwrap(), "It is **132**.");
    h.key_press(Key::Escape);
    h.run();
    assert!(!h.state().view.takes_escape() && take(&mut h).is_empty());
}

#[test]
fn enter_sends_or_makes_a_line_as_was_chosen() {
    let mut h = open(world(question_and_answer()));
    for (enter_sends, modifiers, sends) in [
        (true, Modifiers::NONE, true),
        (true, Modifiers::SHIFT, false),
        (true, Modifiers::COMMAND, true),
        (false, Modifiers::NONE, false),
        (false, Modifiers::SHIFT, true),
        (false, Modifiers::COMMAND, true),
    ] {
        let state = h.state_mut();
        (state.settings.enter_sends, state.view.focus_input) = (enter_sends, true);
        state.view.draft = String::new();
        h.run();
        h.get_by_label("Message").type_text("hello");
        h.key_press_modifiers(modifiers, Key::Enter);
        h.run();
        let expected = if sends { vec![Action::Send("hello".into())] } else { vec![] };
        assert_eq!(take(&mut h), expected, "{enter_sends} {modifiers:?}");
        assert_eq!(h.state().view.draft, if sends { "" } else { "hello\n" });
    }
    // While an answer is written, what is written stays.
    h.state_mut().live = Some(live(2, Stage::Writing));
    h.state_mut().view.draft = "next".into();
    h.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    h.run();
    assert!(take(&mut h).is_empty() && h.state().view.draft == "next");
}

#[test]
fn enter_that_ends_a_composition_neither_sends_nor_makes_a_line() {
    let mut h = open(world(question_and_answer()));
    h.state_mut().view.focus_input = true;
    h.run();
    let preedit = |text: &str| Event::Ime(ImeEvent::Preedit { text: text.into(), active_range_chars: None });
    h.event(preedit("ni"));
    h.run();
    h.key_press(Key::Enter);
    h.run();
    assert!(take(&mut h).is_empty());
    let enter = |pressed| Event::Key { key: Key::Enter, physical_key: None, pressed, repeat: false, modifiers: Modifiers::NONE };
    // The key that ends it may be reported in the same frame.
    h.input_mut().events.extend([preedit(""), Event::Ime(ImeEvent::Commit("你".into())), enter(true), enter(false)]);
    h.run();
    assert!(take(&mut h).is_empty());
    assert_eq!(h.state().view.draft, "你");
    h.run_steps(20);
    h.key_press(Key::Enter);
    h.run();
    assert_eq!(take(&mut h), [Action::Send("你".into())]);
}

#[test]
fn up_in_an_empty_box_edits_the_last_question() {
    let mut h = open(world(question_and_answer()));
    h.state_mut().view.focus_input = true;
    h.run();
    h.key_press(Key::ArrowUp);
    h.run();
    assert_eq!(h.get_by_label("Edit message").value().unwrap(), "What is 47 + 85?");
}

#[test]
fn only_the_header_folds_reasoning() {
    let mut all = question_and_answer();
    all[1].0.text = "<think>carefully</think>\n\nIt is 132.".into();
    all[1].0.answer.as_mut().unwrap().thought_seconds = Some(12.0);
    let mut h = open(world(all));
    assert!(h.query_by_label("carefully").is_none());
    click(&mut h, "Thought for 12 s");
    for text in ["carefully", "It is 132."] {
        h.get_by_label(text).click();
        h.run();
    }
    assert!(h.query_by_label("carefully").is_some());
    click(&mut h, "Thought for 12 s");
    assert!(h.query_by_label("carefully").is_none());
    // The prompt may have opened it, and it may be under way.
    let state = h.state_mut();
    state.messages[1].0.text = "step".into();
    state.messages[1].0.answer = Some(Answer { thinking: true, ..Answer::default() });
    state.live = Some(live(2, Stage::Thinking { seconds: 3.0 }));
    h.run();
    assert!(h.query_by_label("Thinking... 3.0 s").is_some());
}

#[test]
fn the_end_is_followed_until_a_person_scrolls_up() {
    let mut all = long(6);
    all.push(message(6, Speaker::User, "more"));
    all.push(message(7, Speaker::Assistant, "First."));
    let mut w = world(all);
    w.live = Some(live(7, Stage::Writing));
    let mut h = open(w);
    let grow = |h: &mut Harness<'_, World>, n: usize| {
        for i in 0..n {
            h.state_mut().messages[7].0.text.push_str(&format!("\n\nParagraph {i} of it."));
            h.run();
        }
    };
    grow(&mut h, 30);
    assert!(h.state().view.list.following);
    assert!(h.query_by_label("Paragraph 29 of it.").is_some());
    assert!(h.query_by_label("Jump to the end").is_none());
    wheel(&mut h, 300.0);
    assert!(!h.state().view.list.following);
    let top = |h: &Harness<'_, World>| h.get_by_label("Paragraph 20 of it.").rect().top();
    let before = top(&h);
    grow(&mut h, 10);
    assert!((top(&h) - before).abs() < 0.6);
    click(&mut h, "Jump to the end");
    assert!(h.state().view.list.following && h.query_by_label("Jump to the end").is_none());
    wheel(&mut h, 300.0);
    h.state_mut().view.jump_to_end = true;
    h.run();
    assert!(h.state().view.list.following);
}

#[test]
fn a_long_conversation_lays_out_few_messages_and_never_jumps() {
    let mut h = open_in(vec2(700.0, 1200.0), Mode::Dark, world(long(2000)));
    assert!(h.state().view.list.laid_out < 25, "{}", h.state().view.list.laid_out);
    h.state_mut().view.scroll_to = Some(MessageId(1000));
    h.run();
    assert!(h.state().view.composer.height < 120.0, "{}", h.state().view.composer.height);
    let top = |h: &Harness<'_, World>, i: u64| h.get_by_label(&format!("Question {i}")).rect().top();
    assert!((20.0..60.0).contains(&top(&h, 1000)), "{}", top(&h, 1000));
    // Scrolling up into messages that were never measured: whatever is in sight moves exactly as far as the wheel.
    let mut seen = 1000;
    for _ in 0..40 {
        let before = top(&h, seen);
        wheel(&mut h, 120.0);
        assert!((top(&h, seen) - before - 120.0).abs() < 1.1, "{} after {before}", top(&h, seen));
        assert!(h.state().view.list.laid_out < 25);
        while h.query_by_label(&format!("Question {}", seen - 2)).is_some_and(|n| n.rect().top() > 0.0) {
            seen -= 2;
        }
    }
    assert!(seen < 990, "{seen}");
}

#[test]
fn words_are_found_under_the_pointer_and_can_be_lit() {
    let mut all = question_and_answer();
    all[1].0.text = "The **cat** sat.\n\n```rust\nlet cat = 1;\n```\n\nA `cat` again.".into();
    let text = all[1].0.text.clone();
    let mut h = open(world(all));
    for (label, nth) in [("cat", 0), ("let cat = 1;", 1), (" again.", 2)] {
        let nodes: Vec<_> = h.query_all_by_label(label).map(|n| n.rect()).collect();
        let rect = nodes[0];
        let x = if label.starts_with(' ') {
            rect.left() - 8.0
        } else if nth == 1 {
            rect.center().x - 8.0
        } else {
            rect.center().x
        };
        h.hover_at(pos2(x, rect.center().y));
        h.run();
        let start = text.match_indices("cat").nth(nth).unwrap().0;
        let expected = Span { chat: h.state().chat.id.clone(), message: MessageId(2), bytes: start..start + 3 };
        assert_eq!(h.state().view.pointed, Some(expected.clone()), "{label} {rect:?}");
        h.state_mut().lit = Some(expected);
        h.run();
    }
    h.hover_at(pos2(1.0, 1.0));
    h.run();
    assert_eq!(h.state().view.pointed, None);
}

#[test]
fn every_state_can_be_drawn_narrow_and_wide_dark_and_light() {
    let mut reading = world(question_and_answer());
    reading.live = Some(live(2, Stage::Reading { done: 512, total: 2048, reused: 0 }));
    let mut loading = world(Vec::new());
    (loading.model, loading.loading) = (None, Some(Some(0.43)));
    let mut failed = world(Vec::new());
    (failed.model, failed.problem) = (None, Some("The file is damaged"));
    let mut duet = world(question_and_answer());
    duet.messages[1].0.author = Some("Second".into());
    duet.model = None;
    let states: [(World, &[&str]); 5] = [
        (reading, &["Reading the prompt, 512 of 2\u{2009}048 tokens", "1\u{2009}234 of 8\u{2009}192 tokens"]),
        (loading, &["Loading the model, 43 %"]),
        (failed, &["The file is damaged", "Choose a model..."]),
        (duet, &["Second", "No model is loaded"]),
        (world(Vec::new()), &["What is the capital of France?", "Message"]),
    ];
    for (i, (w, labels)) in states.into_iter().enumerate() {
        let (size, mode) = if i % 2 == 0 { (vec2(360.0, 480.0), Mode::Light) } else { (vec2(1200.0, 800.0), Mode::Dark) };
        let h = open_in(size, mode, w);
        for label in labels {
            assert!(h.query_all_by_label(label).next().is_some(), "{label}");
        }
    }
    let mut h = open(world(Vec::new()));
    assert_eq!(click(&mut h, "What is 47 + 85?"), [Action::Send("What is 47 + 85?".into())]);
    let mut w = world(Vec::new());
    (w.model, w.problem) = (None, Some("no"));
    assert_eq!(click(&mut open(w), "Choose a model..."), [Action::OpenPicker]);
}

#[test]
fn an_answer_can_be_drawn_at_every_step_and_is_announced() {
    let text = "# A\n日本 🎉 **b** $x^2$ \\(y\\) and\n- one\n\n  ```py\n  x = 1\n  ```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> ```\n> c\n\n\\[ \\frac{a}{b} \\]\n\n![i](https://e.org/x.png) <think>t</think> [l](https://e.org)\n\n1. x\n2. y";
    let mut w = world(question_and_answer());
    w.messages[1].0.text = String::new();
    w.live = Some(live(2, Stage::Writing));
    let mut h = open_in(vec2(700.0, 1400.0), Mode::Light, w);
    for (end, _) in text.char_indices() {
        h.state_mut().messages[1].0.text = text[..end].to_owned();
        h.step();
    }
    h.state_mut().messages[1].0.text = text.to_owned();
    h.state_mut().live = None;
    h.run();
    assert!(h.query_by_label_contains("Answer finished. # A").is_some());
    assert_eq!(click(&mut h, "Copy code"), [Action::Copy("x = 1".into())]);
}
