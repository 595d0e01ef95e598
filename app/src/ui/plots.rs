//! Marks on the axes of plots: few, and round.

use egui::{Rangef, Style};
use egui_plot::{AxisHints, GridInput, GridMark};

use super::{Theme, parts};

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Steps of 1, 2, 5, 10, 20, ...
    Decimal,
    /// Powers of two, as bytes are counted.
    Binary,
}

impl Round {
    /// The least round number that is not below `step`.
    fn up(self, step: f64) -> f64 {
        let base = match self {
            Self::Decimal => 10.0,
            Self::Binary => return step.max(1.0).log2().ceil().exp2(),
        };
        let power = f64::powf(base, step.log10().floor());
        let steps = [1.0, 2.0, 5.0];
        steps.into_iter().map(|s| s * power).find(|s| *s >= step * (1.0 - 1e-9)).unwrap_or(base * power)
    }
}

/// Marks at round numbers, no more than `most` steps within what is shown.
pub fn marks(input: &GridInput, round: Round, most: u32) -> Vec<GridMark> {
    let (low, high) = input.bounds;
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return Vec::new();
    }
    let step = round.up(span / f64::from(most.max(1)));
    let first = (low / step).ceil();
    let mark = |i: u32| GridMark { value: (first + f64::from(i)) * step, step_size: step };
    (0..=most).map(mark).take_while(|m| m.value <= high).collect()
}

/// A vertical axis whose marks all bear their numbers, in small text.
pub fn axis<'a>(style: &Style, words: impl Fn(f64) -> String + 'a) -> AxisHints<'a> {
    AxisHints::new_y()
        .formatter(move |mark, _| words(mark.value))
        .tick_label_font(Theme::small().resolve(style))
        .label_spacing(Rangef::new(1.0, 2.0))
}

/// Bytes at a mark: "512 KiB".
pub fn bytes(mark: f64) -> String {
    parts::bytes(mark.max(0.0) as u64).replace(".0 ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(low: f64, high: f64, round: Round, most: u32) -> Vec<f64> {
        marks(&GridInput { bounds: (low, high), base_step_size: 1.0 }, round, most).iter().map(|m| m.value).collect()
    }

    #[test]
    fn marks_are_round_and_few() {
        assert_eq!(at(-40.0, 800.0, Round::Decimal, 4), [0.0, 500.0]);
        assert_eq!(at(0.0, 110.0, Round::Decimal, 2), [0.0, 100.0]);
        assert_eq!(at(0.0, 5.8, Round::Decimal, 2), [0.0, 5.0]);
        assert_eq!(at(0.0, 10.0, Round::Decimal, 2), [0.0, 5.0, 10.0]);
        assert_eq!(at(0.0, 1_010.0 * 1024.0, Round::Binary, 2), [0.0, 524_288.0]);
        assert_eq!([bytes(524_288.0), bytes(1.5 * 1024.0), bytes(0.0)], ["512 KiB", "1.5 KiB", "0 B"]);
        for top in [1e-9, 0.37, 7.3, 9.5, 757.0, 123_456.7, 3e12] {
            for (round, most) in [(Round::Decimal, 2), (Round::Decimal, 4), (Round::Binary, 2)] {
                let marks = at(0.0, top, round, most);
                assert!(marks.len() <= most as usize + 1 && marks.first() == Some(&0.0), "{marks:?} up to {top}");
                // There is always one beside 0, but where steps are whole bytes.
                assert!(marks.len() > 1 || (round == Round::Binary && top < 1.0), "{marks:?} up to {top}");
            }
        }
        assert!(at(0.0, f64::NAN, Round::Decimal, 2).is_empty() && at(1.0, 1.0, Round::Decimal, 2).is_empty());
    }
}
