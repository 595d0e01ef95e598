//! What the panel asks of the activity, worked out when it changes and kept until it does. What takes long to work out is
//! renewed a few times a second at most.

use std::{ops::Range, sync::Arc};

use egui_plot::PlotPoint;
use web_time::Duration;

use super::{
    chips::Chip,
    table::{self, Column, Row, Table},
    timeline::Lines,
    transport::{Event, Progress},
};
use crate::{
    activity::{Activity, Cell, Facts, Field, Home, Measure, Measures, Mode, Replay, Snapshot, Sums, TokenRow, View},
    ui::chat::Span,
};

/// Seconds between two renewals of what takes long to work out.
const PAUSE: f64 = 0.2;
/// Tokens and companions of an expert that are listed.
const COMPANY: usize = 6;

/// A token by its number.
pub fn token(a: &Activity, number: usize) -> Option<&TokenRow> {
    a.tokens().get(number)
}

/// Numbers of the tokens that are kept.
pub fn tokens(a: &Activity) -> Range<usize> {
    a.tokens().range()
}

/// The token whose words are pointed at.
pub fn find(a: &Activity, span: &Span) -> Option<usize> {
    a.tokens().under(Some(&span.chat), span.message, span.bytes.start)
}

/// The words of a token.
pub fn span_of(row: &TokenRow) -> Option<Span> {
    let (chat, message) = row.message.as_ref()?;
    (!row.bytes.is_empty()).then(|| Span { chat: chat.clone(), message: *message, bytes: row.bytes.clone() })
}

/// Where every expert is; `None`: it is not known.
fn homes(a: &Activity) -> impl Iterator<Item = Option<Home>> {
    let field = a.field(&View { mode: Mode::Residency, ..View::default() });
    (0..field.values.len()).map(move |at| field.values.get(at).copied().and_then(home_of))
}

/// Experts of a layer that are on the GPU, on average; `None`: it is not known, or none is.
fn slots(a: &Activity) -> Option<f64> {
    let mut resident = 0;
    for home in homes(a) {
        resident += u32::from(home? != Home::Host);
    }
    (resident > 0).then(|| f64::from(resident) / a.shape().rows.len().max(1) as f64)
}

/// Where an expert is, from what the grid shows.
pub fn home_of(value: f32) -> Option<Home> {
    [Home::Host, Home::Device, Home::Moving].into_iter().find(|h| f32::from(*h as u8) == value)
}

/// Whether two views ask for the same. Snapshots are compared by identity.
fn same(a: &View, b: &View) -> bool {
    let alike = |x: &Option<Arc<Snapshot>>, y: &Option<Arc<Snapshot>>| match (x, y) {
        (Some(x), Some(y)) => Arc::ptr_eq(x, y),
        (None, None) => true,
        _ => false,
    };
    (a.mode, a.half_life, a.token, &a.range) == (b.mode, b.half_life, b.token, &b.range) && alike(&a.a, &b.a) && alike(&a.b, &b.b)
}

/// Something worked out, and what it was worked out from.
type Kept<K, T> = Option<(K, T)>;

/// What was counted: a revision, and the range of tokens.
type Counted = (u64, Option<Range<usize>>);

/// What is kept between frames.
#[derive(Default)]
pub struct Data {
    /// The revision that what takes long was worked out from, and when.
    slow: u64,
    slow_at: Option<f64>,
    field: Option<(u64, View, Field)>,
    pub(super) lit: Kept<(u64, usize), Arc<[Cell]>>,
    facts: Kept<(u64, Cell), Option<Arc<Facts>>>,
    chips: Kept<Counted, Arc<[Chip]>>,
    lines: Kept<u64, Arc<Lines>>,
    rows: Option<(u64, View, (Column, bool))>,
    slots: Kept<u64, Option<f64>>,
    curve: Kept<u64, Arc<[PlotPoint]>>,
}

impl Data {
    /// Forgets everything, as when tokens come from elsewhere.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Once a frame, first. `now` in seconds. Answers when there is more to show than this frame will.
    pub fn tick(&mut self, a: &Activity, now: f64) -> Option<Duration> {
        let revision = a.revision();
        match self.slow_at {
            Some(_) if self.slow == revision => return None,
            Some(at) if now >= at && now - at < PAUSE => return Some(Duration::from_secs_f64(PAUSE - (now - at))),
            _ => {}
        }
        (self.slow, self.slow_at) = (revision, Some(now));
        None
    }

    /// What the grid shows.
    pub fn field(&mut self, a: &Activity, view: &View) -> Field {
        // Over a range all its tokens are counted again, which takes long.
        let revision = if view.range.is_some() && view.mode != Mode::Now { self.slow } else { a.revision() };
        if let Some((made, of, field)) = &self.field
            && *made == revision
            && same(of, view)
        {
            return field.clone();
        }
        let field = a.field(view);
        self.field = Some((revision, view.clone(), field.clone()));
        field
    }

    /// The experts that a token chose.
    pub fn lit(&mut self, a: &Activity, number: Option<usize>) -> Arc<[Cell]> {
        let Some(number) = number else { return Arc::from([]) };
        let key = (a.revision(), number);
        if let Some((made, cells)) = &self.lit
            && *made == key
        {
            return Arc::clone(cells);
        }
        let cells: Arc<[Cell]> = a.cells_of(number).into();
        self.lit = Some((key, Arc::clone(&cells)));
        cells
    }

    /// What is known of an expert.
    pub fn facts(&mut self, a: &Activity, cell: Cell) -> Option<Arc<Facts>> {
        let key = (self.slow, cell);
        if let Some((made, facts)) = &self.facts
            && *made == key
        {
            return facts.clone();
        }
        let facts = a.facts(cell, COMPANY).map(Arc::new);
        self.facts = Some((key, facts.clone()));
        facts
    }

    /// A few numbers, over everything or over a range of tokens.
    pub fn chips(&mut self, a: &Activity, range: Option<&Range<usize>>) -> Arc<[Chip]> {
        let key = (self.slow, range.cloned());
        if let Some((made, chips)) = &self.chips
            && *made == key
        {
            return Arc::clone(chips);
        }
        let narrowed = range.map(|r| Sums::of(a.shape(), a.sums().half_life(), a.tokens().iter(r.clone()).map(|(_, t)| t)));
        let measures = Measures::of(a.shape(), narrowed.as_ref().unwrap_or(a.sums()), a.tokens());
        // What is measured over the last tokens does not follow the range.
        let latest = [Measure::Overlap, Measure::Overlap8, Measure::Groups];
        let chip = |m: Measure| {
            let value = measures.all.get(m).filter(|_| range.is_none() || !latest.contains(&m));
            Chip::new(m.name(), value.map(|v| m.format(v)), m.explanation())
        };
        let tokens = parts_of(measures.tokens);
        let chips: Arc<[Chip]> = std::iter::once(tokens).chain(Measure::ALL.into_iter().filter_map(chip)).collect();
        self.chips = Some((key, Arc::clone(&chips)));
        chips
    }

    /// The lines of the timeline.
    pub fn lines(&mut self, a: &Activity) -> Arc<Lines> {
        if let Some((made, lines)) = &self.lines
            && *made == self.slow
        {
            return Arc::clone(lines);
        }
        let lines = Arc::new(Lines::of(a.timeline().samples(), &tokens(a)));
        self.lines = Some((self.slow, Arc::clone(&lines)));
        lines
    }

    /// Experts of a layer that are on the GPU.
    pub fn slots(&mut self, a: &Activity) -> Option<f64> {
        match self.slots {
            Some((made, slots)) if made == self.slow => slots,
            _ => {
                let slots = slots(a);
                self.slots = Some((self.slow, slots));
                slots
            }
        }
    }

    /// Hit rates in per cent by slots of a layer.
    pub fn curve(&mut self, a: &Activity) -> Arc<[PlotPoint]> {
        if let Some((made, curve)) = &self.curve
            && *made == self.slow
        {
            return Arc::clone(curve);
        }
        let points = a.lru().curve().into_iter().enumerate();
        let curve: Arc<[PlotPoint]> = points.map(|(n, rate)| PlotPoint::new(n as f64, 100.0 * rate)).collect();
        self.curve = Some((self.slow, Arc::clone(&curve)));
        curve
    }

    /// Brings the rows of the table up to date.
    pub fn rows(&mut self, a: &Activity, field: &Field, view: &View, table: &mut Table) {
        let key = (table.column, table.descending);
        // While tokens stream in the field changes with each of them; the table does not have to.
        if self.rows.as_ref().is_some_and(|(slow, of, by)| *slow == self.slow && *by == key && same(of, view)) {
            return;
        }
        let counted = view.range.as_ref().map(|r| Sums::of(a.shape(), 1.0, a.tokens().iter(r.clone()).map(|(_, t)| t)));
        table.rows = all_rows(a, counted.as_ref().unwrap_or(a.sums()), field);
        table::sort(&mut table.rows, table.column, table.descending);
        self.rows = Some((self.slow, view.clone(), key));
    }
}

fn parts_of(tokens: u64) -> Chip {
    let value = crate::ui::parts::count(tokens);
    Chip { name: "Tokens", value, tooltip: "Tokens that are counted, those of prompts included" }
}

fn all_rows(a: &Activity, sums: &Sums, field: &Field) -> Vec<Row> {
    let shape = a.shape();
    let experts = shape.experts.max(1);
    let mut rows = Vec::with_capacity(shape.cells());
    for ((at, &value), home) in field.values.iter().enumerate().zip(homes(a)) {
        let cell = Cell { row: at / experts, expert: at % experts };
        let number = |of: &[u64]| of.get(at).copied().unwrap_or_default();
        let count = number(sums.counts());
        let uses = sums.rows().get(cell.row).map_or(0, |r| r.uses).max(1);
        let weight = sums.weights().get(at).copied().unwrap_or_default();
        rows.push(Row {
            cell,
            layer: shape.rows.get(cell.row).copied().unwrap_or_default(),
            value,
            count,
            share: count as f64 / uses as f64,
            weight: if count > 0 { (weight / count as f64) as f32 } else { f32::NAN },
            home,
            misses: number(sums.misses()),
        });
    }
    rows
}

/// A record that is replayed.
pub struct Player {
    /// The replay.
    pub replay: Replay,
    /// What it is of.
    pub name: String,
}

impl Player {
    /// What has happened so far.
    pub fn activity(&self) -> &Activity {
        self.replay.activity()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let r = &self.replay;
        Progress { name: self.name.clone(), at: r.done(), of: r.len(), playing: r.playing(), speed: r.speed() }
    }

    /// Does what a person asked.
    pub fn obey(&mut self, event: Event) {
        match event {
            Event::Play(on) => self.replay.set_playing(on),
            Event::Seek(at) => self.replay.seek(at),
            Event::Speed(speed) => self.replay.set_speed(speed),
            Event::Live => {}
        }
    }
}
