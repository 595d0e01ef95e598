//! Synthetic activity for tests.

use std::sync::Arc;

use pleiad_runtime::experts::trace::{Routed, Served};

use crate::{
    activity::{Activity, Shape, shape::LayerKind},
    chats::{ChatId, MessageId},
};

/// A model of one dense layer and `rows` mixture layers; two experts are chosen for a token.
pub fn shape(rows: usize, experts: usize, groups: usize) -> Shape {
    let mixtures = (0..rows).map(LayerKind::Mixture);
    Shape {
        model: "test".into(),
        layers: std::iter::once(LayerKind::Dense).chain(mixtures).collect(),
        rows: (1..=rows).collect(),
        experts,
        top_k: 2.min(experts),
        groups,
        top_k_groups: groups,
        shared: 1,
    }
}

/// An expert that was chosen.
pub fn routed(position: u32, layer: u16, rank: u16, expert: u16, served: Served) -> Routed {
    let moved = matches!(served, Served::Fetched | Served::Gathered);
    Routed {
        position,
        layer,
        rank,
        expert,
        weight: if rank == 0 { 0.75 } else { 0.25 },
        served,
        bytes: if moved { 1000 } else { 0 },
    }
}

/// What the token at a position chooses: two different experts in each layer, the second one resident three times in four.
pub fn choices(shape: &Shape, position: u32) -> Vec<Routed> {
    let experts = shape.experts as u32;
    let of = |(row, &layer): (usize, &usize)| {
        let first = (position * position + 3 * row as u32) % experts;
        let second = (first + 1 + position % (experts - 1)) % experts;
        let served = if position % 4 == 3 { Served::Fetched } else { Served::Hit };
        [routed(position, layer as u16, 0, first as u16, Served::Hit), routed(position, layer as u16, 1, second as u16, served)]
    };
    shape.rows.iter().enumerate().flat_map(of).collect()
}

/// The conversation and the message that answers belong to.
pub fn place() -> (ChatId, MessageId) {
    (ChatId("chat".into()), MessageId(7))
}

/// An activity of no tokens.
pub fn activity(rows: usize, experts: usize, tokens: usize) -> Activity {
    Activity::new(Arc::new(shape(rows, experts, 1)), tokens)
}

/// A generation of `n` tokens, the first `prompt` of which are its prompt: ten a second.
pub fn answer(activity: &mut Activity, run: u64, n: u32, prompt: u32) {
    let shape = Arc::clone(activity.shape());
    let began = run as f64 * 10_000.0;
    let (chat, message) = place();
    let read: Vec<(u32, String)> = (0..prompt).map(|i| (i, format!(" p{i}"))).collect();
    activity.begin(run, Some(chat), Some(message), &read, began);
    let mut offset = 0;
    for position in 0..n {
        let now = began + 0.1 * f64::from(position + 1);
        if position >= prompt {
            let text = format!(" w{position}");
            activity.token(run, position, &text, offset..offset + text.len(), now);
            offset += text.len();
        }
        activity.routed(run, &choices(&shape, position), now);
    }
    activity.end(run, began + 0.1 * f64::from(n));
}

/// Hits and lookups of the tokens that are kept.
pub fn lookups(activity: &Activity) -> (u64, u64) {
    let tokens = activity.tokens();
    let all = tokens.iter(tokens.range()).flat_map(|(_, t)| &t.choices);
    all.fold((0, 0), |(hits, n), c| (hits + u64::from(c.served == Served::Hit), n + 1))
}
