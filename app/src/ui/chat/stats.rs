//! What an answer took, in words.

use egui::{Grid, RichText, Ui};

use super::super::{Theme, parts};
use crate::{
    chats::{Answer, Stop},
    talk::{Live, live::Stage},
};

/// Why an answer ended, in words; `None`: it has not.
pub(super) fn stop_words(stop: &Stop) -> Option<&str> {
    match stop {
        Stop::Unfinished => None,
        Stop::End => Some("complete"),
        Stop::Length => Some("longest answer reached"),
        Stop::Context => Some("context full"),
        Stop::Cancelled => Some("stopped"),
        Stop::Failed(_) => Some("failed"),
    }
}

fn tokens(n: usize) -> String {
    if n == 1 { "1 token".into() } else { format!("{} tokens", parts::count(n as u64)) }
}

/// Tokens per second after the first token.
fn speed(answer: &Answer) -> Option<f64> {
    let s = answer.stats.as_ref()?;
    (s.generated_tokens > 1 && s.decode_seconds > 0.0).then(|| (s.generated_tokens - 1) as f64 / s.decode_seconds)
}

/// Share of the chosen experts that were resident, where that was counted.
fn hit_rate(answer: &Answer) -> Option<f64> {
    let d = answer.stats.as_ref()?.decode_device;
    let chosen = d.expert_hits + d.expert_misses;
    (chosen > 0).then(|| d.expert_hits as f64 / chosen as f64)
}

/// How often drafted tokens were right, and tokens of a step, where any were drafted.
fn drafts(answer: &Answer) -> Option<String> {
    let s = answer.stats.as_ref()?;
    Some(format!("drafts right {:.0} %, {:.1} tokens a step", 100.0 * s.acceptance()?, s.tokens_per_step()?))
}

/// What an answer took, in one line.
pub(super) fn line(answer: &Answer) -> String {
    let mut words: Vec<String> = Vec::new();
    if let Some(s) = &answer.stats {
        let cached =
            if s.reused_tokens > 0 { format!(" ({} cached)", parts::count(s.reused_tokens as u64)) } else { String::new() };
        words.push(format!("Prompt {}{cached}", tokens(s.prompt_tokens)));
        words.push(format!("first token after {}", parts::seconds(s.prefill_seconds)));
        words.push(tokens(s.generated_tokens));
    }
    words.extend(speed(answer).map(|s| format!("{s:.1} tok/s")));
    words.extend(drafts(answer));
    words.extend(hit_rate(answer).map(|h| format!("expert hits {:.0} %", 100.0 * h)));
    words.extend(stop_words(&answer.stop).map(str::to_owned));
    words.join(" · ")
}

/// Everything that is known of an answer: names and values.
pub(super) fn details(answer: &Answer) -> Vec<(&'static str, String)> {
    let s = &answer.sampled;
    let mut rows = vec![("Model", answer.model.clone()), ("Device", answer.device.clone())];
    let sampling = if s.temperature == 0.0 {
        "greedy".to_owned()
    } else {
        format!("temperature {}, top-k {}, top-p {}, min-p {}", s.temperature, s.top_k, s.top_p, s.min_p)
    };
    rows.push(("Sampling", sampling));
    if s.repeat_penalty != 1.0 || s.frequency_penalty != 0.0 || s.presence_penalty != 0.0 {
        let penalties = format!(
            "repeat {}, frequency {}, presence {}, over {}",
            s.repeat_penalty,
            s.frequency_penalty,
            s.presence_penalty,
            tokens(s.penalty_last_n as usize)
        );
        rows.push(("Penalties", penalties));
    }
    rows.push(("Seed", s.seed.to_string()));
    if let Some(seconds) = answer.thought_seconds {
        rows.push(("Reasoning", parts::seconds(seconds)));
    }
    if let Some(s) = &answer.stats {
        let new = s.prompt_tokens.saturating_sub(s.reused_tokens);
        if new > 0 && s.prefill_seconds > 0.0 {
            rows.push(("Reading", format!("{:.1} tok/s over {}", new as f64 / s.prefill_seconds, tokens(new))));
        }
        rows.push(("Writing", parts::seconds(s.decode_seconds)));
        if s.drafted > 0 {
            let counts = [s.drafted, s.accepted, s.steps].map(|n| parts::count(n as u64));
            rows.push(("Drafts", format!("{} drafted, {} right, in {} steps", counts[0], counts[1], counts[2])));
        }
        let d = s.decode_device;
        if d.expert_hits + d.expert_misses > 0 {
            let counts = format!("{} hits, {} misses", parts::count(d.expert_hits), parts::count(d.expert_misses));
            rows.push(("Experts", counts));
        }
        rows.push(("Experts moved", parts::bytes(s.prefill_device.expert_bytes + d.expert_bytes)));
    }
    rows.retain(|(_, value)| !value.is_empty());
    rows
}

/// The line under an answer, with everything else where it is pointed at.
pub(super) fn line_ui(ui: &mut Ui, answer: &Answer) {
    let text = line(answer);
    if text.is_empty() {
        return;
    }
    let label = ui.label(parts::small(ui, text));
    label.on_hover_ui(|ui| {
        Grid::new("answer").num_columns(2).show(ui, |ui| {
            for (name, value) in details(answer) {
                ui.label(parts::muted(ui, name));
                ui.label(value);
                ui.end_row();
            }
        });
    });
}

/// What an answer under way is at, in words.
pub(super) fn live_words(live: &Live) -> String {
    let mut words = match live.stage {
        Stage::Waiting => "Waiting...".to_owned(),
        Stage::Reading { .. } => return String::new(),
        Stage::Stopping => "Stopping...".to_owned(),
        Stage::Thinking { .. } | Stage::Writing => String::new(),
    };
    let mut add = |text: String| {
        if !words.is_empty() {
            words.push_str(" · ");
        }
        words.push_str(&text);
    };
    if live.tokens > 0 {
        add(tokens(live.tokens));
    }
    if let Some(speed) = live.speed {
        add(format!("{speed:.1} tok/s"));
    }
    words
}

/// How the end of an answer is told, where it was not its own.
pub(super) fn end_ui(ui: &mut Ui, stop: &Stop, live: bool) {
    let t = Theme::of(ui.ctx());
    match stop {
        Stop::Failed(words) => {
            ui.horizontal_wrapped(|ui| {
                ui.label(RichText::new("×").color(t.bad).strong());
                ui.label(RichText::new(words).color(t.bad));
            });
        }
        Stop::Unfinished if !live => {
            ui.label(RichText::new("The program ended here").color(t.warn));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use pleiad_runtime::engine::GenerationStats;

    use super::*;

    #[test]
    fn a_line_says_what_was_counted_and_nothing_else() {
        let mut stats = GenerationStats {
            prompt_tokens: 1234,
            reused_tokens: 1000,
            generated_tokens: 11,
            prefill_seconds: 0.5,
            decode_seconds: 2.0,
            ..Default::default()
        };
        let mut answer = Answer { stats: Some(stats), stop: Stop::End, ..Default::default() };
        let expected =
            "Prompt 1\u{2009}234 tokens (1\u{2009}000 cached) · first token after 0.5 s · 11 tokens · 5.0 tok/s · complete";
        assert_eq!(line(&answer), expected);
        (stats.decode_device.expert_hits, stats.decode_device.expert_misses) = (3, 1);
        answer.stats = Some(stats);
        assert!(line(&answer).contains("expert hits 75 %"));
        assert!(details(&answer).iter().any(|(n, v)| *n == "Reading" && v == "468.0 tok/s over 234 tokens"));
        (stats.steps, stats.drafted, stats.accepted) = (5, 10, 6);
        answer.stats = Some(stats);
        assert!(line(&answer).contains("5.0 tok/s · drafts right 60 %, 2.0 tokens a step"), "{}", line(&answer));
        assert!(details(&answer).iter().any(|(n, v)| *n == "Drafts" && v == "10 drafted, 6 right, in 5 steps"));
        assert_eq!(line(&Answer { stop: Stop::Cancelled, ..Default::default() }), "stopped");
        assert_eq!(line(&Answer::default()), "");
    }
}
