#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use egui::{self, Key, Modifiers, Role};
use egui_kittest::{
    Harness,
    kittest::{NodeT as _, Queryable as _},
};

use super::{
    list::{Row, arrange},
    *,
};
use crate::{chats::MessageId, settings::Settings, ui::action::ExportFormat};

/// 2026-11-22, about noon.
const NOW: u64 = 1_795_348_800_000;
const HOUR: u64 = 3_600_000;

struct State {
    view: SidebarView,
    out: Vec<Action>,
    summaries: Vec<Summary>,
    hits: Vec<Hit>,
    open: Option<ChatId>,
    busy: Vec<ChatId>,
    model: Option<String>,
}

fn id(name: &str) -> ChatId {
    ChatId(name.to_owned())
}

fn summary(name: &str, hours: u64) -> Summary {
    Summary {
        id: id(name),
        title: format!("Title {name}"),
        pinned: false,
        updated_ms: NOW - hours * HOUR,
        messages: 2,
        damaged: None,
    }
}

fn harness(summaries: Vec<Summary>) -> Harness<'static, State> {
    let state = State {
        view: SidebarView::default(),
        out: Vec::new(),
        summaries,
        hits: Vec::new(),
        open: None,
        busy: Vec::new(),
        model: None,
    };
    Harness::builder()
        .with_size([280.0, 500.0])
        .with_context_setup(|ctx| Theme::apply(ctx, &Settings { reduced_motion: true, ..Settings::default() }))
        .build_ui_state(
            |ui, s: &mut State| {
                let cx = SidebarContext {
                    summaries: &s.summaries,
                    open: s.open.as_ref(),
                    busy: &s.busy,
                    hits: &s.hits,
                    model: s.model.as_deref(),
                    device: s.model.as_ref().map(|_| "a GPU"),
                    page: Page::Chat,
                    now_ms: NOW,
                };
                s.view.show(ui, &cx, &mut s.out);
            },
            state,
        )
}

fn three() -> Harness<'static, State> {
    let mut h = harness(vec![summary("a", 1), summary("b", 2), summary("c", 30)]);
    h.run();
    h
}

#[test]
fn conversations_are_grouped() {
    let mut pinned = summary("p", 2000);
    pinned.pinned = true;
    let all = [pinned, summary("a", 1), summary("b", 20), summary("c", 100), summary("d", 1000), summary("e", 2000)];
    let mut rows = Vec::new();
    arrange(&mut rows, &all, NOW);
    let headings = ["Pinned", "Today", "Yesterday", "Last 7 days", "Older"].map(Row::Heading);
    let [p, today, yesterday, week, older] = headings;
    use Row::Chat;
    assert_eq!(rows, [p, Chat(0), today, Chat(1), yesterday, Chat(2), week, Chat(3), older, Chat(4), Chat(5)]);
}

#[test]
fn buttons_ask_for_what_they_say() {
    let mut h = three();
    for name in ["New conversation", "Title b", "Experts", "Performance", "Settings", "Log", "Conversation"] {
        h.get_by_label(name).click();
        h.run();
    }
    h.get_by_label("Choose a model").click();
    h.run();
    use Page::{Chat, Experts, Log, Performance, Settings};
    let mut expected = vec![Action::Run(Command::NewChat), Action::OpenChat(id("b"))];
    expected.extend([Experts, Performance, Settings, Log, Chat].map(Action::Go));
    expected.push(Action::OpenPicker);
    assert_eq!(h.state().out, expected);
    h.state_mut().model = Some("Tiny".into());
    h.run();
    h.get_by_label("Choose a model, now Tiny on a GPU");
}

#[test]
fn of_a_thousand_conversations_few_are_laid_out() {
    let all: Vec<Summary> = (0..1000).map(|i| summary(&i.to_string(), i)).collect();
    let mut h = harness(all);
    h.run();
    let drawn = h.get_all_by_label_contains("Title ").count();
    assert!((5..40).contains(&drawn), "{drawn}");
    // The list follows when a conversation is opened elsewhere.
    h.state_mut().open = Some(id("900"));
    h.run();
    let row = h.get_by_label("Title 900");
    assert!(row.rect().min.y > 0.0 && row.rect().max.y < 500.0, "{:?}", row.rect());
    assert!(h.get_all_by_label_contains("Title ").count() < 40);
}

#[test]
fn the_menu_has_everything() {
    let mut h = three();
    h.get_by_label("Title a").hover();
    h.run();
    for (entry, action) in [
        ("Pin", Action::Pin(id("a"), true)),
        ("Export as Markdown...", Action::Export(id("a"), ExportFormat::Markdown)),
        ("Export as JSON...", Action::Export(id("a"), ExportFormat::Json)),
        ("Delete", Action::Delete(id("a"))),
    ] {
        h.get_by_label("Title a").hover();
        h.run();
        h.get_by_label("Menu of Title a").click();
        h.run();
        h.get_by_label(entry).click();
        h.run();
        assert_eq!(h.state_mut().out.pop(), Some(action));
    }
    h.state_mut().out.clear();
    h.state_mut().summaries[1].pinned = true;
    h.run();
    h.get_by_label("Title b").click_secondary();
    h.run();
    h.get_by_label("Unpin").click();
    h.run();
    assert_eq!(h.state().out, [Action::Pin(id("b"), false)]);
}

#[test]
fn titles_are_edited_in_place() {
    let mut h = three();
    let begin = |h: &mut Harness<'_, State>| {
        h.state_mut().view.rename = Some(id("b"));
        h.run();
        assert!(h.get_by_label("Title").is_focused());
        h.get_by_label("Title").type_text("Stars");
        h.run();
    };
    begin(&mut h);
    h.key_press(Key::Escape);
    h.run();
    assert!(h.query_by_label("Title").is_none() && h.state().out.is_empty());
    begin(&mut h);
    h.key_press(Key::Enter);
    h.run();
    assert_eq!(h.state().out, [Action::Rename(id("b"), "Stars".into())]);
    h.state_mut().out.clear();
    // Losing the focus keeps the title.
    begin(&mut h);
    h.get_by_label("Search conversations").focus();
    h.run();
    assert_eq!(h.state().out, [Action::Rename(id("b"), "Stars".into())]);
    assert!(h.query_by_label("Title").is_none());
    h.state_mut().out.clear();
    // From the menu, and nothing is pushed for the same title.
    h.get_by_label("Title c").click_secondary();
    h.run();
    h.get_by_label("Rename").click();
    h.run();
    assert!(h.get_by_label("Title").is_focused());
    h.key_press(Key::Enter);
    h.run();
    assert!(h.state().out.is_empty());
}

#[test]
fn arrows_move_through_the_list() {
    let mut h = three();
    h.get_by_label("Search conversations").focus();
    h.run();
    let mut expect = |keys: &[Key], title: &str| {
        for key in keys {
            h.key_press(*key);
            h.run();
        }
        assert!(h.get_by_label(title).is_focused(), "{title}");
    };
    expect(&[Key::ArrowDown], "Title a");
    expect(&[Key::ArrowDown], "Title b");
    expect(&[Key::ArrowDown], "Title c"); // over the heading of its group
    expect(&[Key::ArrowUp], "Title b");
    expect(&[Key::End], "Title c");
    expect(&[Key::Home], "Title a");
    expect(&[Key::Tab], "Menu of Title a");
    h.key_press_modifiers(Modifiers::SHIFT, Key::Tab);
    h.run();
    h.key_press(Key::Enter);
    h.run();
    assert_eq!(h.state().out, [Action::OpenChat(id("a"))]);
    h.key_press(Key::F2);
    h.run();
    assert!(h.get_by_label("Title").is_focused());
}

#[test]
fn busy_and_damaged_ones_are_told_apart() {
    let mut h = three();
    h.state_mut().busy = vec![id("a")];
    h.state_mut().summaries[2].damaged = Some("line 3 is cut off".into());
    h.run();
    h.get_by_label("Title a, answering");
    h.get_by_label("Title c, cannot be opened").click();
    h.run();
    assert!(h.state().out.is_empty());
    h.get_by_label("Title c, cannot be opened").click_secondary();
    h.run();
    assert!(h.query_by_label("Rename").is_none());
    h.get_by_label("Delete").click();
    h.run();
    assert_eq!(h.state().out, [Action::Delete(id("c"))]);
    h.state_mut().open = Some(id("b"));
    h.run();
    let toggled = h.get_by_label("Title b").accesskit_node().toggled();
    assert_eq!(toggled, Some(egui::accesskit::Toggled::True));
}

#[test]
fn hits_take_the_place_of_the_list() {
    let mut h = three();
    h.state_mut().view.focus_search = true;
    h.run();
    h.get_by_label("Search conversations").type_text("blue");
    h.run();
    assert_eq!(h.state().view.query, "blue");
    h.get_by_label("Nothing found");
    let hit =
        |message, excerpt: &str, range| Hit { chat: id("a"), title: "Title a".into(), message, excerpt: excerpt.into(), range };
    // The second range is not on characters: it is shown without a mark.
    h.state_mut().hits = vec![hit(Some(MessageId(7)), "why is blue blue?", 7..11), hit(None, "bläue", 3..4)];
    h.run();
    assert!(h.query_by_label("Title b").is_none());
    h.get_by_label("Title a: why is blue blue?").click();
    h.run();
    h.get_by_label("Title a, in the title").click();
    h.run();
    assert_eq!(h.state().out, [Action::OpenMessage(id("a"), MessageId(7)), Action::OpenChat(id("a"))]);
    h.get_by_label("Clear the search").click();
    h.run();
    h.get_by_label("Title b");
    h.get_by_label("Search conversations").type_text("x");
    h.run();
    h.key_press(Key::Escape);
    h.run();
    assert_eq!(h.state().view.query, "");
}

#[test]
fn an_empty_list_says_so() {
    let mut h = harness(Vec::new());
    h.run();
    h.get_by_label("No conversations yet");
    assert!(h.get_all_by_role(Role::Button).count() >= 2 && h.get_all_by_role(Role::CheckBox).count() >= 5);
}
