//! The panel: controls, grid, and what is below it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`header`] | mode, half-life, what is compared with what, where tokens come from |
//! | [`strip`] | one column for each token |
//! | [`timeline`] | hit rate, bytes and speed, and the brush |
//! | [`chips`] | a few numbers |
//! | [`facts`] | what is known of one expert |
//! | [`domains`] | prompt packs side by side |
//! | [`table`] | the grid as a table |
//! | [`slots`] | what more room on the GPU would buy |
//! | [`transport`] | recording, export, import and replay |
//! | [`data`] | what all of these ask of the activity, worked out when it changes |
//! | [`panel`] | where everything is |

pub mod chips;
pub mod data;
pub mod domains;
pub mod facts;
#[cfg(test)]
mod fixture;
pub mod header;
pub mod panel;
pub mod slots;
pub mod strip;
pub mod table;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod transport;

use std::sync::Arc;

use egui::Ui;
use pleiad_runtime::experts::trace::TraceFormat;

use crate::{
    activity::{Activity, Cell, Mode, Record, Replay, Shape, Snapshot, View, record::Recorder},
    settings::Settings,
    ui::{
        Action, Command,
        chat::Span,
        experts::{grid::Grid, picture},
        parts,
    },
};

use data::{Data, Player};
use header::empty_ui;

/// What the panel is drawn from.
pub struct ExpertsContext<'a> {
    /// What the experts did; `None`: no model with experts is loaded.
    pub activity: Option<&'a mut Activity>,
    /// The words of an answer that are pointed at in the conversation.
    pub pointed: Option<&'a Span>,
    /// An answer is being written.
    pub running: bool,
    /// The survey of prompt packs that is under way, and how many wait behind it.
    pub surveying: Option<(&'a str, usize)>,
    /// Whether the grid may be drawn by a callback on the GPU.
    pub gpu: bool,
    /// Alone on its page, with more room.
    pub alone: bool,
    /// What a person has chosen.
    pub settings: &'a Settings,
    /// Seconds of a clock that does not go back: that of the activity.
    pub now: f64,
}

/// What is shown below the grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tab {
    /// Hit rate, bytes and speed.
    #[default]
    Timeline,
    /// Prompt packs side by side.
    Domains,
    /// The grid as a table.
    Table,
    /// What more room on the GPU would buy.
    Slots,
    /// Recording and replay.
    Record,
}

impl Tab {
    /// Every tab, from left to right.
    pub const ALL: [Self; 5] = [Self::Timeline, Self::Domains, Self::Table, Self::Slots, Self::Record];

    /// What it is called, and what it shows.
    pub fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Timeline => ("Timeline", "Hit rate, bytes moved and speed, token by token"),
            Self::Domains => ("Domains", "Which experts code, mathematics or a language use"),
            Self::Table => ("Table", "The cells with the largest numbers, as text"),
            Self::Slots => ("What if", "The hit rate with more or fewer experts on the GPU"),
            Self::Record => ("Record", "Record, export, import and replay"),
        }
    }
}

/// What the panel keeps between frames.
#[derive(Default)]
pub struct ExpertsView {
    /// The token that is pointed at: its words in the conversation are lit.
    pub lit: Option<Span>,
    header: header::Header,
    grid: Grid,
    strip: strip::Strip,
    timeline: timeline::Timeline,
    domains: domains::Domains,
    table: table::Table,
    slots: slots::Slots,
    tab: Tab,
    /// The cell that a person has pinned.
    pinned: Option<Cell>,
    /// The cell that the keyboard is at in the grid.
    cursor: Option<Cell>,
    /// The token that a person has pinned.
    pinned_token: Option<usize>,
    /// The token that the pointer was at in the strip in the last frame.
    pointed_token: Option<usize>,
    /// Uses that were put aside.
    taken: Vec<Arc<Snapshot>>,
    data: Data,
    player: Option<Player>,
    /// Exports tell tokens by their ids, without their text.
    ids_only: bool,
    shape: Option<Arc<Shape>>,
    /// Prompt packs that were read before the panel was drawn.
    waiting: Vec<(String, Vec<u64>)>,
}

impl ExpertsView {
    /// Draws the panel, and fills all of `ui`.
    pub fn show(&mut self, ui: &mut Ui, cx: ExpertsContext<'_>, out: &mut Vec<Action>) {
        self.lit = None;
        let ExpertsContext { activity, pointed, running, surveying, gpu, alone, settings, now } = cx;
        let Some(live) = activity else {
            let text = "Experts are part of mixture-of-experts models. Load one to watch which of them each token uses.";
            let button = ("Choose a model...", Action::Run(Command::OpenPicker));
            empty_ui(ui, "No experts to show", text, Some(button), out);
            return;
        };
        self.follow(live.shape());
        set_half_life(live, self.header.half_life(settings));
        // Taken out while the panel is drawn: what is drawn is either the record or the live activity.
        let mut player = self.player.take();
        if let Some(player) = &mut player {
            set_half_life(player.replay.activity_mut(), self.header.half_life(settings));
            player.replay.tick(now);
            if player.replay.playing() {
                ui.ctx().request_repaint();
            }
        }
        let frame = panel::Frame {
            source: player.as_ref().map_or(&*live, Player::activity),
            live,
            progress: player.as_ref().map(Player::progress),
            pointed: pointed.filter(|_| player.is_none()),
            running,
            surveying,
            gpu,
            alone,
            settings,
            now,
        };
        match (self.panel_ui(ui, &frame, out), &mut player) {
            (Some(transport::Event::Live), player) => {
                *player = None;
                self.forget();
            }
            (Some(event), Some(player)) => {
                player.obey(event);
                ui.ctx().request_repaint();
            }
            _ => {}
        }
        self.player = player;
    }

    /// The next way of showing experts.
    pub fn next_mode(&mut self) {
        let at = Mode::ALL.iter().position(|m| *m == self.header.mode).unwrap_or(0);
        self.header.mode = Mode::ALL[(at + 1) % Mode::ALL.len()];
    }

    /// A prompt pack was read: its name, and the uses of every expert.
    pub fn surveyed(&mut self, name: String, uses: Vec<u64>) {
        match &self.shape {
            Some(shape) => self.domains.surveyed(shape, name, uses),
            // The panel was not drawn yet.
            None => self.waiting.push((name, uses)),
        }
    }

    /// Another model, or another source of tokens: what belongs to the last one is let go.
    fn follow(&mut self, shape: &Arc<Shape>) {
        if self.shape.as_ref().is_some_and(|s| Arc::ptr_eq(s, shape) || s == shape) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        if self.shape.is_some() {
            let header = header::Header { mode: self.header.mode, ..Default::default() };
            *self = Self { header, tab: self.tab, ids_only: self.ids_only, ..Self::default() };
        }
        self.shape = Some(Arc::clone(shape));
        for (name, uses) in waiting {
            self.domains.surveyed(shape, name, uses);
        }
    }

    /// Nothing that names tokens outlives their source.
    fn forget(&mut self) {
        (self.pinned_token, self.pointed_token, self.timeline.brush) = (None, None, None);
        self.strip.forget();
        self.data.reset();
    }

    /// Starts recording, or stops. What was recorded before is let go when a new record begins.
    pub fn toggle_recording(&mut self, activity: &mut Activity) {
        if activity.recorder().on() {
            activity.stop_recording();
        } else {
            activity.start_recording(Recorder::ROWS);
        }
    }

    /// The grid as it is shown, as the bytes of a PNG file.
    ///
    /// # Errors
    /// In words, where it cannot be encoded.
    pub fn picture(&self, activity: &Activity, settings: &Settings) -> Result<Vec<u8>, String> {
        let source = self.player.as_ref().map_or(activity, Player::activity);
        let view = self.view(settings);
        let shape = source.shape();
        let field = source.field(&view);
        let tokens = source.tokens();
        let mut lines = vec![match &view.range {
            Some(range) => format!("Tokens {} to {} of {}", range.start + 1, range.end, tokens.range().end),
            None => format!("{} tokens", parts::count(source.sums().tokens())),
        }];
        match view.mode {
            Mode::Recent => lines.push(format!("Half-life {:.0} tokens", self.header.half_life(settings))),
            Mode::Difference => {
                let name = |s: &Option<Arc<Snapshot>>| s.as_ref().map_or_else(|| "now".to_owned(), |s| s.label.clone());
                lines.push(format!("A: {}, B: {}", name(&view.a), name(&view.b)));
            }
            _ => {}
        }
        let title = format!("{}: {}", shape.model, view.mode.name());
        picture::png(shape, &field, settings.palette, &title, &lines)
    }

    /// Everything recorded, as CSV or JSON lines: the record that is replayed, else what was recorded, else the tokens that are
    /// still at hand.
    pub fn trace(&self, activity: &Activity, json: bool) -> String {
        let format = if json { TraceFormat::Jsonl } else { TraceFormat::Csv };
        let text = !self.ids_only;
        if let Some(player) = &self.player {
            return player.replay.record().write(format, text);
        }
        activity.trace(format, text)
    }

    /// Reads a record, to replay it.
    ///
    /// # Errors
    /// In words, where it is no record, or one of another model.
    pub fn import(&mut self, activity: &Activity, bytes: &[u8]) -> Result<(), String> {
        let shape = Arc::clone(activity.shape());
        let record = Record::read(bytes, &shape)?;
        if record.tokens().is_empty() {
            return Err("the record holds no tokens".into());
        }
        self.follow(&shape);
        self.forget();
        let tokens = parts::count(record.tokens().len() as u64);
        let name =
            if record.model.is_empty() { format!("{tokens} tokens") } else { format!("{tokens} tokens of {}", record.model) };
        self.taken.push(Arc::new(record.snapshot(format!("Record, {tokens} tokens"), &shape)));
        let mut replay = Replay::new(Arc::new(record), shape, Activity::TOKENS);
        replay.set_playing(true);
        self.player = Some(Player { replay, name });
        self.tab = Tab::Record;
        Ok(())
    }

    /// What the grid is to show, but for the token that is pointed at.
    fn view(&self, settings: &Settings) -> View {
        let mode = self.header.mode;
        View {
            mode,
            // Dragging the slider counts anew in any case; else the activity has this half-life already.
            half_life: (mode == Mode::Recent).then(|| self.header.half_life(settings)),
            token: None,
            range: self.timeline.brush.clone(),
            a: self.header.a.clone(),
            b: self.header.b.clone(),
        }
    }
}

/// Recent uses are counted with that half-life from now on.
fn set_half_life(activity: &mut Activity, half_life: f32) {
    if activity.sums().half_life() != half_life {
        activity.set_half_life(half_life);
    }
}
