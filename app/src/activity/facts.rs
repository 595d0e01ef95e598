//! What is known of one expert, for whoever points at it.

use std::{cmp::Reverse, collections::HashMap};

use super::{Activity, Cell, Home, chance};

/// A token that chose an expert.
#[derive(Clone, Debug, PartialEq)]
pub struct Chooser {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// How often it chose the expert, among the tokens that are kept.
    pub times: u32,
    /// With which weight, on average.
    pub mean_weight: f32,
}

/// An expert of the same layer that is chosen together with another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partner {
    /// Which.
    pub expert: usize,
    /// How often, among the tokens that are kept.
    pub times: u32,
    /// `P(both) / (P(one) P(other))`: 1 where choosing the one says nothing of the other.
    pub lift: f32,
}

/// What is known of an expert.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Which.
    pub cell: Cell,
    /// Its layer of the model, dense layers counted.
    pub layer: usize,
    /// Its group.
    pub group: usize,
    /// Tokens that its layer routed.
    pub tokens: u64,
    /// Of these, how many chose it.
    pub count: u64,
    /// Its share of its layer's uses; `None`: there are none.
    pub share: Option<f64>,
    /// Uses as a multiple of an even spread.
    pub relative: Option<f64>,
    /// The 95 % interval of that.
    pub interval: Option<(f64, f64)>,
    /// Chance explains how far it is from an even spread.
    pub noise: bool,
    /// Recent uses.
    pub recent: f64,
    /// Its mean weight where it was chosen.
    pub mean_weight: Option<f64>,
    /// Where it is, if that is known.
    pub home: Option<Home>,
    /// Times that it was chosen and was there.
    pub hits: u64,
    /// Times that it was chosen and was not.
    pub misses: u64,
    /// Bytes moved for it.
    pub bytes: u64,
    /// Tokens since it was used; 0: by the latest; `None`: never.
    pub used_ago: Option<u64>,
    /// Its place among its layer's experts by uses, from 1.
    pub rank: usize,
    /// Tokens that chose it most often, among those that are kept.
    pub choosers: Vec<Chooser>,
    /// Experts that are chosen with it most often, among tokens that are kept.
    pub partners: Vec<Partner>,
}

impl Activity {
    /// What is known of an expert, with up to `most` tokens that chose it and experts that go with it. Looks through all tokens
    /// that are kept. `None`: there is no such cell.
    pub fn facts(&self, cell: Cell, most: usize) -> Option<Facts> {
        let at = self.sums.index(cell)?;
        let layer = *self.shape.rows.get(cell.row)?;
        let row = self.sums.rows().get(cell.row)?;
        let row_cells = cell.row * self.shape.experts..(cell.row + 1) * self.shape.experts;
        let row_counts = self.sums.counts().get(row_cells)?;
        let count = *self.sums.counts().get(at)?;
        let misses = *self.sums.misses().get(at)?;
        let last = *self.sums.last().get(at)?;
        let even = self.shape.top_k as f64 / self.shape.experts.max(1) as f64;
        let known = row.tokens > 0 && even > 0.0;
        let (low, high) = chance::interval(count, row.tokens);
        let (choosers, partners) = self.company(cell, most);
        Some(Facts {
            cell,
            layer,
            group: self.shape.group_of(cell.expert),
            tokens: row.tokens,
            count,
            share: (row.uses > 0).then(|| count as f64 / row.uses as f64),
            relative: known.then(|| count as f64 / (row.tokens as f64 * even)),
            interval: known.then(|| (low / even, high / even)),
            noise: chance::ordinary(row.tokens, even).contains(&(count as f64)),
            recent: self.sums.recent(cell.row).nth(cell.expert).unwrap_or(0.0),
            mean_weight: (count > 0).then(|| self.sums.weights().get(at).map(|w| w / count as f64)).flatten(),
            home: self.home(cell),
            hits: if row.lookups == 0 { 0 } else { count - misses },
            misses,
            bytes: self.sums.bytes().get(at).copied().unwrap_or(0),
            used_ago: (last > 0).then(|| row.tokens - last),
            rank: 1 + row_counts.iter().filter(|&&n| n > count).count(),
            choosers,
            partners,
        })
    }

    fn company(&self, cell: Cell, most: usize) -> (Vec<Chooser>, Vec<Partner>) {
        let mut tokens = 0u32;
        let mut uses = vec![0u32; self.shape.experts];
        let mut both = vec![0u32; self.shape.experts];
        let mut texts: HashMap<u32, (u32, f32, &str)> = HashMap::new();
        for (_, token) in self.tokens.newest_first() {
            let chosen = token.row(&self.shape, cell.row);
            tokens += u32::from(!chosen.is_empty());
            let mine = chosen.iter().find(|c| usize::from(c.expert) == cell.expert);
            for choice in chosen {
                let expert = usize::from(choice.expert);
                if let (Some(uses), Some(both)) = (uses.get_mut(expert), both.get_mut(expert)) {
                    *uses += 1;
                    *both += u32::from(mine.is_some());
                }
            }
            if let Some(mine) = mine {
                let entry = texts.entry(token.id).or_insert((0, 0.0, &token.text));
                entry.0 += 1;
                entry.1 += mine.weight;
            }
        }
        let mut choosers: Vec<(u32, (u32, f32, &str))> = texts.into_iter().collect();
        choosers.sort_by(|a, b| b.1.0.cmp(&a.1.0).then(b.1.1.total_cmp(&a.1.1)).then(a.0.cmp(&b.0)));
        let chooser = |(id, (times, weight, text)): (u32, (u32, f32, &str))| Chooser {
            id,
            text: text.to_owned(),
            times,
            mean_weight: weight / times as f32,
        };
        let own = uses.get(cell.expert).copied().unwrap_or(0);
        let pairs = both.iter().zip(&uses).enumerate();
        let mut partners: Vec<Partner> = pairs
            .filter(|&(expert, (&times, _))| expert != cell.expert && times > 0)
            .map(|(expert, (&times, &other))| {
                let lift = f64::from(times) * f64::from(tokens) / (f64::from(own) * f64::from(other));
                Partner { expert, times, lift: lift as f32 }
            })
            .collect();
        partners.sort_by_key(|p| (Reverse(p.times), p.expert));
        partners.truncate(most);
        (choosers.into_iter().take(most).map(chooser).collect(), partners)
    }
}
