//! From what is counted to what is shown.

use std::{ops::Range, sync::Arc};

use super::{Activity, Field, Home, Mode, Scale, Snapshot, Sums, TokenRow, chance};

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Which numbers.
    pub mode: Mode,
    /// Half-life of recent uses in tokens; `None`: that of [`Activity::set_half_life`], which costs nothing. Another one is
    /// counted from the tokens that are kept.
    pub half_life: Option<f32>,
    /// The token that is pointed at, by its number, for [`Mode::Now`]; `None`: the latest.
    pub token: Option<usize>,
    /// Tokens to count, by number, as far as they are kept; `None`: everything.
    pub range: Option<Range<usize>>,
    /// A of A − B; `None`: what is counted now (over the range, if there is one).
    pub a: Option<Arc<Snapshot>>,
    /// B of A − B; `None`: nothing is known of the difference.
    pub b: Option<Arc<Snapshot>>,
}

/// Octaves to either side of an even spread that are told apart.
pub const OCTAVES: f32 = 3.0;

/// Numbers, what is greyed, scale and unit.
struct Shown {
    values: Arc<[f32]>,
    noise: Arc<[bool]>,
    scale: Scale,
    unit: &'static str,
}

impl Shown {
    fn plain(values: Arc<[f32]>, scale: Scale, unit: &'static str) -> Self {
        Self { values, noise: Arc::from([]), scale, unit }
    }
}

impl Activity {
    /// A number for every cell, as `view` has it. Cheap for whole sums; ranges and other half-lives count tokens again, so a
    /// caller should keep the field until [`Activity::revision`] or the view changes.
    pub fn field(&self, view: &View) -> Field {
        let Shown { values, noise, scale, unit } = self.shown(view);
        let (rows, columns) = (self.shape.rows.len(), self.shape.experts);
        let revision = fingerprint(&values, &noise, scale);
        Field { rows, columns, values, noise, scale, unit, revision }
    }

    fn shown(&self, view: &View) -> Shown {
        let other = view.half_life.filter(|h| view.mode == Mode::Recent && *h != self.sums.half_life());
        let counted = match (&view.range, other, view.mode) {
            (_, _, Mode::Now | Mode::Residency) | (None, None, _) => None,
            (range, _, _) => {
                let half_life = view.half_life.unwrap_or(self.sums.half_life());
                let range = range.clone().unwrap_or(self.tokens.range());
                Some(Sums::of(&self.shape, half_life, self.tokens.iter(range).map(|(_, t)| t)))
            }
        };
        let sums = counted.as_ref().unwrap_or(&self.sums);
        match view.mode {
            Mode::Now => self.now(self.pointed(view)),
            Mode::Recent => recent(sums),
            Mode::Total => {
                let values: Arc<[f32]> = sums.counts().iter().map(|&n| n as f32).collect();
                let max = largest(&values).max(2.0);
                Shown::plain(values, Scale::Log { max }, "uses")
            }
            Mode::Relative => self.relative(sums),
            Mode::Weight => {
                let cells = sums.weights().iter().zip(sums.counts());
                let mean = |(&weight, &n): (&f64, &u64)| if n > 0 { (weight / n as f64) as f32 } else { f32::NAN };
                let values: Arc<[f32]> = cells.map(mean).collect();
                let max = largest(&values);
                Shown::plain(values, Scale::Linear { max }, "mean weight")
            }
            Mode::Residency => self.homes(),
            Mode::Misses => {
                let values: Arc<[f32]> = sums.misses().iter().map(|&n| n as f32).collect();
                let max = largest(&values).max(2.0);
                Shown::plain(values, Scale::Log { max }, "misses")
            }
            Mode::Difference => self.difference(view, sums),
        }
    }

    /// The token that [`Mode::Now`] shows.
    fn pointed(&self, view: &View) -> Option<&TokenRow> {
        let latest = || match &view.range {
            Some(range) => self.tokens.iter(range.clone()).filter(|(_, t)| !t.choices.is_empty()).last().map(|(n, _)| n),
            None => self.latest,
        };
        self.tokens.get(view.token.or_else(latest)?)
    }

    /// Weights of a token: 0 what it did not choose, NaN in layers of which its routing is not known.
    fn now(&self, token: Option<&TokenRow>) -> Shown {
        let columns = self.shape.experts;
        let mut values = vec![f32::NAN; self.shape.cells()];
        for chosen in token.into_iter().flat_map(TokenRow::layers) {
            let Some(row) = chosen.first().and_then(|c| self.shape.row_of(c.layer.into())) else { continue };
            let Some(cells) = values.get_mut(row * columns..(row + 1) * columns) else { continue };
            cells.fill(0.0);
            for choice in chosen {
                if let Some(cell) = cells.get_mut(usize::from(choice.expert)) {
                    *cell = choice.weight;
                }
            }
        }
        // A scale for the greatest weight there ever was would leave the weights of most tokens in the dark.
        let max = largest(&values);
        Shown::plain(values.into(), Scale::Linear { max }, "weight")
    }

    /// Uses as a multiple of an even spread.
    fn relative(&self, sums: &Sums) -> Shown {
        let experts = self.shape.experts.max(1);
        let share = self.shape.top_k as f64 / experts as f64;
        let mut values = Vec::with_capacity(sums.counts().len());
        let mut noise = Vec::with_capacity(sums.counts().len());
        for (row, counts) in sums.rows().iter().zip(sums.counts().chunks(experts)) {
            let ordinary = chance::ordinary(row.tokens, share);
            let even = (1.0 / (row.tokens as f64 * share)) as f32;
            for &count in counts {
                values.push(match row.tokens {
                    0 => f32::NAN,
                    _ => (count as f32 * even).log2().clamp(-OCTAVES, OCTAVES),
                });
                noise.push(ordinary.contains(&(count as f64)));
            }
        }
        Shown { values: values.into(), noise: noise.into(), scale: Scale::Ratio { octaves: OCTAVES }, unit: "times uniform" }
    }

    /// Where experts are; those that were moved for the latest token are moving.
    fn homes(&self) -> Shown {
        let mut values: Vec<f32> = match &self.homes {
            Some(homes) => homes.iter().map(|&home| f32::from(home as u8)).collect(),
            None => vec![f32::NAN; self.shape.cells()],
        };
        for cell in self.moving() {
            if let Some(value) = self.sums.index(cell).and_then(|at| values.get_mut(at)) {
                *value = f32::from(Home::Moving as u8);
            }
        }
        Shown::plain(values.into(), Scale::Homes, "place")
    }

    /// Shares of A minus shares of B.
    fn difference(&self, view: &View, sums: &Sums) -> Shown {
        let unit = "share";
        let now;
        let a = match &view.a {
            Some(a) => a.as_ref(),
            None => {
                now = Snapshot::of_sums("", &self.shape, sums);
                &now
            }
        };
        let Some(b) = view.b.as_deref().filter(|b| a.fits(&self.shape) && b.fits(&self.shape)) else {
            return Shown::plain(vec![f32::NAN; self.shape.cells()].into(), Scale::Signed { max: 1.0 }, unit);
        };
        let mut values = Vec::with_capacity(a.counts.len());
        values.extend(a.shares().zip(b.shares()).map(|(a, b)| (a - b) as f32));
        let mut noise = Vec::with_capacity(values.len());
        noise.extend(a.alike(b));
        let max = round_up(values.iter().fold(0.0, |max: f32, v| max.max(v.abs())));
        Shown { values: values.into(), noise: noise.into(), scale: Scale::Signed { max }, unit }
    }
}

/// Uses that halve every so many tokens.
fn recent(sums: &Sums) -> Shown {
    let mut values = Vec::with_capacity(sums.counts().len());
    for row in 0..sums.rows().len() {
        values.extend(sums.recent(row).map(|r| r as f32));
    }
    let max = largest(&values);
    Shown::plain(values.into(), Scale::Linear { max }, "recent uses")
}

/// The end of a scale that holds all of `values`.
fn largest(values: &[f32]) -> f32 {
    // Maxima of floats that ignore NaN; in lanes, for there are many.
    let mut lanes = [0.0f32; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    round_up(lanes.iter().chain(rest).fold(0.0, |max, &v| if v > max { v } else { max }))
}

/// The next of 1, 2, 5, 10, 20, ..., so that a scale does not change with every token. Of nothing: 1.
fn round_up(max: f32) -> f32 {
    if max.is_nan() || max <= 0.0 || max.is_infinite() {
        return 1.0;
    }
    let power = 10f64.powf(f64::from(max).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|s| s * power * (1.0 + 1e-6) >= f64::from(max)).unwrap_or(10.0);
    (step * power) as f32
}

/// A number that differs, but for one chance in 2^64, between fields that differ.
fn fingerprint(values: &[f32], noise: &[bool], scale: Scale) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(ODD);
        mixed ^ (mixed >> 29)
    };
    let (kind, end) = match scale {
        Scale::Linear { max } => (1, max),
        Scale::Log { max } => (2, max),
        Scale::Ratio { octaves } => (3, octaves),
        Scale::Signed { max } => (4, max),
        Scale::Homes => (5, 0.0),
    };
    let mut lanes = [kind, u64::from(end.to_bits()), values.len() as u64, noise.len() as u64];
    let (chunks, rest) = values.as_chunks::<4>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = mix(*lane, value.to_bits().into());
        }
    }
    for value in rest {
        lanes[0] = mix(lanes[0], value.to_bits().into());
    }
    for (lane, chunk) in noise.chunks(64).enumerate() {
        let bits = chunk.iter().fold(0, |bits: u64, &grey| (bits << 1) | u64::from(grey));
        lanes[lane % 4] = mix(lanes[lane % 4], bits);
    }
    lanes.into_iter().fold(ODD, mix)
}
