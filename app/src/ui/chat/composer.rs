//! The box to write in, and how much of the context is in use.

use egui::{
    Align, Event, Frame, Id, ImeEvent, Key, Layout, Margin, Rect, RichText, Role, ScrollArea, Stroke, TextEdit, TextStyle, Ui,
    UiBuilder, Vec2, pos2,
};

use super::{
    super::{Action, Command, Theme, icons::Icon, parts, theme},
    ChatContext, buttons,
    list::Shown,
};
use crate::talk::live::Stage;

/// Side of the button beside the box.
const BUTTON: f32 = 32.0;
/// Lines that the box grows to.
const LINES: f32 = 8.0;
/// Seconds after an input method has put in a text in which Enter still belongs to it: some platforms report the key too.
const AFTER_COMMIT: f64 = 0.05;

/// What the box keeps between frames.
#[derive(Default)]
pub(super) struct Composer {
    composing: bool,
    committed: Option<f64>,
    /// Its height in the last frame.
    pub height: f32,
}

/// What was asked for in the box.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To send what is written.
    Send,
    /// To edit the last question.
    EditLast,
}

/// Names the box, wherever it is.
pub(super) fn id() -> Id {
    Id::unique("chat composer")
}

impl Composer {
    /// Takes the keys that mean something here out of the input of this frame.
    fn keys(&mut self, ui: &Ui, enter_sends: bool, empty: bool) -> Option<Asked> {
        let (mut composing, mut committed) = (self.composing, self.committed);
        let mut asked = None;
        ui.input_mut(|i| {
            let now = i.time;
            i.events.retain(|event| match event {
                Event::Ime(ImeEvent::Preedit { text, .. }) => {
                    composing = !text.is_empty();
                    true
                }
                Event::Ime(ImeEvent::Commit(text)) => {
                    composing = false;
                    if !text.is_empty() {
                        committed = Some(now);
                    }
                    true
                }
                Event::Key { key: Key::Enter, pressed: true, modifiers, repeat, .. } if !modifiers.alt => {
                    // Enter ends a composition; it neither sends nor begins a line.
                    if composing || committed.is_some_and(|at| now - at < AFTER_COMMIT) {
                        return false;
                    }
                    let sends = modifiers.command || modifiers.ctrl || modifiers.shift != enter_sends;
                    if sends && !repeat {
                        asked = Some(Asked::Send);
                    }
                    !sends
                }
                Event::Key { key: Key::ArrowUp, pressed: true, modifiers, .. } if empty && modifiers.is_none() && !composing => {
                    asked = Some(Asked::EditLast);
                    false
                }
                _ => true,
            });
        });
        (self.composing, self.committed) = (composing, committed);
        asked
    }

    /// Draws the box. Whether the last question is to be edited.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        cx: &ChatContext<'_>,
        draft: &mut String,
        focus: bool,
        shown: &[Shown<'_>],
        out: &mut Vec<Action>,
    ) -> Option<Asked> {
        let t = Theme::of(ui.ctx());
        let id = id();
        let focused = ui.memory(|m| m.has_focus(id));
        let mut asked = None;
        if focused {
            asked = self.keys(ui, cx.settings.enter_sends, draft.is_empty());
        } else {
            self.composing = false;
        }
        let stroke = Stroke::new(1.0, if focused { t.accent } else { t.line });
        let frame = Frame::new().fill(t.field).stroke(stroke).corner_radius(theme::ROUND).inner_margin(Margin::symmetric(10, 8));
        let mut send = false;
        frame.show(ui, |ui| {
            let area = ui.available_rect_before_wrap();
            let text = Rect::from_min_max(area.min, pos2(area.right() - BUTTON - theme::GAP, area.bottom()));
            let row = ui.text_style_height(&TextStyle::Body);
            let builder = UiBuilder::new().id_salt("text").max_rect(text).layout(Layout::top_down(Align::Min));
            let used = ui.scope_builder(builder, |ui| {
                ui.add_space(((BUTTON - row) / 2.0 - 2.0).max(0.0));
                ScrollArea::vertical().id_salt("draft").max_height(LINES * row + 8.0).show(ui, |ui| {
                    let hint = match cx.model {
                        Some(model) => format!("Message {model}"),
                        None => "Write a message".to_owned(),
                    };
                    let edit = TextEdit::multiline(draft)
                        .id(id)
                        .frame(Frame::NONE)
                        .margin(Margin::symmetric(2, 2))
                        .desired_rows(1)
                        .desired_width(f32::INFINITY)
                        .hint_text(RichText::new(hint).color(t.muted));
                    let response = ui.add(edit).accessible_name("Message");
                    if focus {
                        response.request_focus();
                    }
                });
            });
            let bottom = used.response.rect.bottom().max(area.top() + BUTTON);
            let place = Rect::from_min_size(pos2(area.right() - BUTTON, bottom - BUTTON), Vec2::splat(BUTTON));
            send = ui.scope_builder(UiBuilder::new().id_salt("send").max_rect(place), |ui| send_ui(ui, cx, draft, out)).inner;
        });
        if (send || asked == Some(Asked::Send)) && may_send(cx, draft).is_ok() {
            out.push(Action::Send(draft.trim_start_matches(['\n', '\r']).trim_end().to_owned()));
            draft.clear();
            asked = Some(Asked::Send);
        } else if asked == Some(Asked::Send) {
            asked = None;
        }
        meter_ui(ui, cx, shown);
        asked
    }
}

/// Whether what is written can be sent; if not, why.
fn may_send(cx: &ChatContext<'_>, draft: &str) -> Result<(), &'static str> {
    if cx.live.is_some() {
        Err("An answer is being written")
    } else if cx.model.is_none() {
        Err(if cx.loading.is_some() { "The model is still being loaded" } else { "Choose a model first" })
    } else if draft.trim().is_empty() {
        Err("Write something first")
    } else {
        Ok(())
    }
}

/// The button beside the box. Whether what is written is to be sent.
fn send_ui(ui: &mut Ui, cx: &ChatContext<'_>, draft: &str, out: &mut Vec<Action>) -> bool {
    if let Some(live) = cx.live {
        let stopping = live.stage == Stage::Stopping;
        let tip = if stopping { "It stops with the next token".to_owned() } else { Command::Stop.tooltip(ui.ctx()) };
        let stop = ui.add_enabled_ui(!stopping, |ui| buttons::round_button(ui, Icon::Stop, "Stop", &tip, true)).inner;
        if stop.clicked() {
            out.push(Action::Stop);
        }
        return false;
    }
    let state = may_send(cx, draft);
    let tip = match state {
        Ok(()) if cx.settings.enter_sends => "Send (Enter)",
        Ok(()) => "Send (Shift+Enter)",
        Err(why) => why,
    };
    ui.add_enabled_ui(state.is_ok(), |ui| buttons::round_button(ui, Icon::Send, "Send", tip, true)).inner.clicked()
}

/// Tokens of the context in use: of the answer under way, else of the last that is shown.
fn in_use(cx: &ChatContext<'_>, shown: &[Shown<'_>]) -> Option<usize> {
    cx.live.map(|l| l.context).filter(|&n| n > 0).or_else(|| {
        let stats = shown.iter().rev().find_map(|s| s.message.answer.as_ref()?.stats.as_ref())?;
        Some(stats.prompt_tokens + stats.generated_tokens)
    })
}

/// How much of the context is in use.
fn meter_ui(ui: &mut Ui, cx: &ChatContext<'_>, shown: &[Shown<'_>]) {
    if cx.context == 0 || cx.model.is_none() {
        return;
    }
    let t = Theme::of(ui.ctx());
    let used = in_use(cx, shown).unwrap_or(0);
    let share = used as f32 / cx.context as f32;
    let (color, word) = match share {
        s if s >= 0.98 => (t.bad, ", full"),
        s if s >= 0.85 => (t.warn, ", nearly full"),
        _ => (t.muted, ""),
    };
    let words = format!("{} of {} tokens{word}", parts::count(used as u64), parts::count(cx.context as u64));
    ui.horizontal(|ui| {
        let bar = parts::meter(ui, share, Vec2::new(72.0, 5.0), color);
        parts::named(&bar, Role::Meter, &format!("Context, {words}"));
        bar.on_hover_text("How much of the context is in use: the conversation with its answers");
        ui.label(RichText::new(words).color(color).text_style(Theme::small()));
    });
}
