//! Budgets for shares of resident experts, from what `pleiad fit --json` says of a model.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How many of the experts are to be resident.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// That many percent, above 0 and at most 100.
    Percent(f64),
    /// As few as Pleiad accepts.
    Floor,
}

impl Share {
    /// Everything.
    pub fn is_whole(self) -> bool {
        self == Self::Percent(100.0)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "floor" {
            return Ok(Self::Floor);
        }
        let percent = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
        let percent = percent.filter(|&p: &f64| p > 0.0 && p <= 100.0);
        percent.map(Self::Percent).ok_or_else(|| "use percentages above 0 and at most 100, or `floor`".into())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(p) => write!(f, "{p} %"),
            Self::Floor => f.write_str("floor"),
        }
    }
}

/// A mixture layer.
#[derive(Clone, Debug, PartialEq)]
struct Layer {
    /// Its number, dense layers counted.
    layer: usize,
    experts: u64,
    /// Bytes of an expert.
    blob: u64,
}

/// A model's needs.
#[derive(Clone, Debug)]
pub struct Fit {
    /// What the model is called.
    pub title: String,
    /// The least budget.
    pub least: u64,
    /// The budget with which everything is resident.
    pub whole: u64,
    /// Share of resident experts at the least budget.
    floor: f64,
    layers: Vec<Layer>,
}

/// A budget, and the share of experts that is resident with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// From 0 to 1.
    pub resident: f64,
}

impl Fit {
    /// From what `pleiad fit --json` prints.
    pub fn from_json(json: &Value) -> Result<Self> {
        let count = |value: &Value, name: &str| value[name].as_u64().with_context(|| format!("fit tells no {name}"));
        let layers = json["needs"]["layers"].as_array().context("fit tells no layers")?;
        let layers = layers.iter().map(|l| {
            let layer = usize::try_from(count(l, "layer")?)?;
            Ok(Layer { layer, experts: count(l, "experts")?, blob: count(l, "blob")? })
        });
        let mut layers = layers.collect::<Result<Vec<_>>>()?;
        layers.sort_by_key(|l| l.layer);
        if layers.iter().all(|l| l.experts == 0) {
            bail!("this model has no experts");
        }
        let (least, whole) = (count(json, "least_bytes")?, count(json, "whole_bytes")?);
        let placements = json["placements"].as_array().map_or(&[][..], Vec::as_slice);
        let floor = placements.iter().find(|p| p["budget"].as_u64() == Some(least)).and_then(|p| p["resident_share"].as_f64());
        let floor = floor.context("fit tells no placement at the floor")?;
        let name = |key: &str| json[key].as_str().filter(|n| !n.is_empty());
        let title = name("model").or(name("source")).unwrap_or("a model without a name").to_owned();
        Ok(Self { title, least, whole, floor, layers })
    }

    /// The budget for a share; `None` where it would be below the floor.
    pub fn budget(&self, share: Share) -> Option<Budget> {
        let Share::Percent(percent) = share else { return Some(Budget { bytes: self.least, resident: self.floor }) };
        let slots = |l: &Layer| ((l.experts as f64 * percent / 100.0).ceil() as u64).min(l.experts);
        // Everything but experts is what is left of the whole.
        let missing: u64 = self.layers.iter().map(|l| (l.experts - slots(l)).saturating_mul(l.blob)).sum();
        let bytes = self.whole.saturating_sub(missing);
        let (resident, all) = self.layers.iter().fold((0, 0), |(r, a), l| (r + slots(l), a + l.experts));
        // At the floor itself only what is called so: one row, not two.
        (bytes > self.least || missing == 0).then(|| Budget { bytes, resident: resident as f64 / all as f64 })
    }

    /// Mixture layers.
    pub fn mixtures(&self) -> usize {
        self.layers.len()
    }

    /// How many mixture layers have their experts on the CPU, in a program that places them by whole layers.
    pub fn layers_on_cpu(&self, resident: f64) -> usize {
        ((1.0 - resident.clamp(0.0, 1.0)) * self.layers.len() as f64).round() as usize
    }

    /// The `--n-cpu-moe` that leaves the experts of `layers` mixture layers on the CPU: it counts from the model's first
    /// layer, dense layers included, which have no experts to leave.
    pub fn n_cpu_moe(&self, layers: usize) -> usize {
        layers.checked_sub(1).and_then(|last| self.layers.get(last)).map_or(0, |l| l.layer + 1)
    }
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use serde_json::json;

    use super::*;

    /// 26 mixture layers after a dense one, 64 experts of 5 MiB, 100 MiB of everything else, a floor of 18 experts.
    pub fn example() -> Value {
        let layers: Vec<Value> =
            (1..27).map(|layer| json!({"layer": layer, "experts": 64, "top_k": 6, "blob": 5 << 20})).collect();
        let least = (100u64 + 26 * 18 * 5) << 20;
        json!({
            "model": "Example", "source": "example.gguf",
            "needs": {"dense": 60 << 20, "cache": 20 << 20, "work": 20 << 20, "layers": layers},
            "least_bytes": least, "whole_bytes": (100u64 + 26 * 64 * 5) << 20,
            "placements": [{"budget": least, "resident_share": 0.28125}],
        })
    }

    #[test]
    fn shares_can_be_typed() {
        assert_eq!("50".parse(), Ok(Share::Percent(50.0)));
        assert_eq!("12.5%".parse(), Ok(Share::Percent(12.5)));
        assert_eq!("floor".parse(), Ok(Share::Floor));
        assert_eq!(["100", "62.5", "floor"].map(|s| s.parse::<Share>().unwrap().to_string()), ["100 %", "62.5 %", "floor"]);
        for bad in ["", "0", "-5", "101", "nan", "half"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn budgets_follow_from_the_needs() {
        let fit = Fit::from_json(&example()).unwrap();
        let mib = |share: Share| fit.budget(share).map(|b| (b.bytes >> 20, b.resident));
        assert_eq!(mib(Share::Percent(100.0)), Some((8420, 1.0)));
        assert_eq!(mib(Share::Percent(75.0)), Some((6340, 0.75)));
        assert_eq!(mib(Share::Percent(50.0)), Some((4260, 0.5)));
        // 18 of 64 are the floor.
        assert_eq!(mib(Share::Percent(25.0)), None);
        assert_eq!(mib(Share::Floor), Some((2440, 0.28125)));
        // A share that is no whole number of experts is rounded up, as fit does.
        assert_eq!(mib(Share::Percent(51.0)), Some((100 + 26 * 33 * 5, 33.0 / 64.0)));
    }

    #[test]
    fn llama_cpp_counts_from_the_first_layer() {
        let fit = Fit::from_json(&example()).unwrap();
        assert_eq!([1.0, 0.75, 0.5, 0.28125, 0.0].map(|r| fit.layers_on_cpu(r)), [0, 7, 13, 19, 26]);
        // Layer 0 is dense.
        assert_eq!([0, 7, 13, 26].map(|n| fit.n_cpu_moe(n)), [0, 8, 14, 27]);
    }

    #[test]
    fn what_fit_does_not_tell_is_an_error() {
        for key in ["least_bytes", "whole_bytes", "needs", "placements"] {
            let mut json = example();
            json.as_object_mut().unwrap().remove(key);
            assert!(Fit::from_json(&json).is_err(), "{key}");
        }
        let mut dense = example();
        dense["needs"]["layers"] = json!([]);
        assert!(Fit::from_json(&dense).unwrap_err().to_string().contains("no experts"));
    }
}
