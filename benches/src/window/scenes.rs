//! What is drawn and measured.

use std::{sync::Arc, time::Instant};

use anyhow::{Result, anyhow, bail};
use egui::{Event, Modifiers, MouseWheelSource, MouseWheelUnit, Pos2, TouchPhase, Vec2};
use pleiad_app::{
    activity::{Shape, shape::LayerKind},
    chats::{Answer, Sampling, Setup, Stop},
    settings::{LoadSettings, Settings},
    ui::Action,
};
use pleiad_models::{Checkpoint, Role};
use pleiad_runtime::{
    Engine, EngineOptions, Event as Said, GenerateOptions, SamplingParams,
    engine::{GenerationStats, load},
    experts::trace::{Routed, Served},
};

use super::{Frames, WindowArgs, screen::Screen};

/// Tokens a second that arrive.
const TOKENS_A_SECOND: f64 = 200.0;
/// Frames before measuring begins: fonts and pipelines are made.
const WARM_UP: usize = 30;
/// Messages of a long conversation.
const MESSAGES: usize = 2000;

type Scene = fn(f64) -> Result<Frames>;

/// Every scene.
pub const ALL: [(&str, Scene); 3] = [
    ("58 x 256 experts, 200 tokens a second", streaming),
    ("2000 messages, scrolling", scrolling),
    ("2000 messages, an answer streaming", appending),
];

/// The shape of DeepSeek-V3.
fn v3() -> Shape {
    let kind = |layer: usize| if layer < 3 { LayerKind::Dense } else { LayerKind::Mixture(layer - 3) };
    Shape {
        model: "DeepSeek-V3".into(),
        layers: (0..61).map(kind).collect(),
        rows: (3..61).collect(),
        experts: 256,
        top_k: 8,
        groups: 8,
        top_k_groups: 4,
        shared: 1,
    }
}

/// A xorshift: the same tokens every time.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// The experts of a token, skewed as routers are.
fn routed(shape: &Shape, position: u32, draws: &mut Draws) -> Vec<Routed> {
    let mut rows = Vec::with_capacity(shape.rows.len() * shape.top_k);
    for &layer in &shape.rows {
        let mut chosen: Vec<u16> = Vec::with_capacity(shape.top_k);
        while chosen.len() < shape.top_k {
            let expert = draws.below(shape.experts as u64).min(draws.below(shape.experts as u64)) as u16;
            if !chosen.contains(&expert) {
                chosen.push(expert);
            }
        }
        for (rank, expert) in chosen.into_iter().enumerate() {
            let served = if draws.below(10) == 0 { Served::Gathered } else { Served::Hit };
            rows.push(Routed {
                position,
                layer: layer as u16,
                rank: rank as u16,
                expert,
                weight: 0.4 / (rank + 1) as f32,
                served,
                bytes: 0,
            });
        }
    }
    rows
}

fn settings() -> Settings {
    Settings { load: LoadSettings { device: "cpu".into(), ..LoadSettings::default() }, ..Settings::default() }
}

/// The app with the embedded model loaded, and out of the way.
fn opened(settings: &Settings, setup: Setup) -> Result<Screen> {
    let mut screen = Screen::open(settings, setup)?;
    let begun = Instant::now();
    while screen.app.models().loaded().is_empty() {
        screen.frame();
        if let Some(problem) = screen.app.problem() {
            bail!("{problem}");
        }
        if begun.elapsed().as_secs() > 120 {
            bail!("the embedded model does not load");
        }
    }
    Ok(screen)
}

const WORDS: [&str; 12] =
    ["the ", "router ", "sends ", "**each** ", "token ", "to ", "`eight` ", "experts ", "of ", "many.\n\n", "Their sum ", "is "];

/// An answer streams at 200 tokens a second beside the grid of DeepSeek-V3.
fn streaming(seconds: f64) -> Result<Frames> {
    let mut screen = opened(&settings(), Setup::default())?;
    let shape = Arc::new(v3());
    screen.app.watch(Arc::clone(&shape));
    let chat = screen.app.open_chat().cloned().ok_or_else(|| anyhow!("no conversation is open"))?;
    let library = screen.app.library_mut();
    let question = library.add(&chat, None, Role::User, None, "How does routing work?", None);
    let answer = library.add(&chat, question, Role::Assistant, None, "", Some(Answer::default()));
    let answer = answer.ok_or_else(|| anyhow!("the conversation takes no answer"))?;
    let mut draws = Draws(0x9e37_79b9_7f4a_7c15);
    let prompt: Vec<(u32, String)> = (0..16).map(|i| (i, format!(" {i}"))).collect();
    let ready: Vec<Vec<Routed>> =
        (0..(seconds * TOKENS_A_SECOND) as u32 + 400).map(|t| routed(&shape, 16 + t, &mut draws)).collect();
    if let Some(activity) = screen.app.activity_mut() {
        activity.begin(1, Some(chat.clone()), Some(answer), &prompt, 0.0);
    }
    let (mut sent, mut bytes) = (0_usize, 0_usize);
    let mut frames = Vec::new();
    let begun = Instant::now();
    for frame in 0.. {
        let now = begun.elapsed().as_secs_f64();
        if now > seconds {
            break;
        }
        let due = ((now * TOKENS_A_SECOND) as usize).min(ready.len());
        let mut text = String::new();
        for token in sent..due {
            let word = WORDS[token % WORDS.len()];
            if let Some(activity) = screen.app.activity_mut() {
                activity.routed(1, &ready[token], now);
                activity.token(1, token as u32, word, bytes..bytes + word.len(), now);
            }
            bytes += word.len();
            text.push_str(word);
        }
        sent = due;
        screen.app.library_mut().extend(&chat, answer, &text);
        let spent = screen.frame();
        if frame >= WARM_UP as u64 {
            frames.push(spent);
        }
        screen.pace(begun, frame + 1);
    }
    Ok(Frames(frames))
}

/// The app at a conversation of 2,000 messages.
fn long_conversation() -> Result<(Screen, pleiad_app::chats::ChatId, pleiad_app::chats::MessageId)> {
    let mut screen = opened(&Settings { experts: false, ..settings() }, Setup::default())?;
    let chat = screen.app.open_chat().cloned().ok_or_else(|| anyhow!("no conversation is open"))?;
    let library = screen.app.library_mut();
    let mut parent = None;
    for i in 0..MESSAGES / 2 {
        parent = library.add(&chat, parent, Role::User, None, &format!("Question {i}: what is {i} + {i}?"), None);
        let text = match i % 4 {
            0 => format!("{}.", 2 * i),
            1 => format!(
                "The sum is **{}**.\n\n- one\n- two\n- three\n\nThat is all there is to say about it, at some length, so that it takes more than one line of the page.",
                2 * i
            ),
            2 => format!("```rust\nfn main() {{\n    println!(\"{{}}\", {i} + {i});\n}}\n```\n\nIt prints {}.", 2 * i),
            _ => format!("| a | b | a + b |\n|---|---|---|\n| {i} | {i} | {} |\n", 2 * i),
        };
        let record =
            Answer { model: "bench".into(), stop: Stop::End, stats: Some(GenerationStats::default()), ..Answer::default() };
        parent = library.add(&chat, parent, Role::Assistant, None, &text, Some(record));
    }
    let last = parent.ok_or_else(|| anyhow!("the conversation takes no messages"))?;
    for _ in 0..WARM_UP {
        screen.frame();
    }
    Ok((screen, chat, last))
}

/// Scrolls up and down through it.
fn scrolling(seconds: f64) -> Result<Frames> {
    let (mut screen, _, _) = long_conversation()?;
    let mut frames = Vec::new();
    let begun = Instant::now();
    screen.event(Event::PointerMoved(Pos2::new(700.0, 400.0)));
    while begun.elapsed().as_secs_f64() < seconds {
        // Three seconds up, three down.
        let up = ((begun.elapsed().as_secs_f64() / 3.0) as u64).is_multiple_of(2);
        let delta = Vec2::new(0.0, if up { 400.0 } else { -400.0 });
        screen.event(Event::MouseWheel {
            unit: MouseWheelUnit::Point,
            delta,
            phase: TouchPhase::Move,
            source: MouseWheelSource::Wheel,
            modifiers: Modifiers::NONE,
        });
        frames.push(screen.frame());
    }
    Ok(Frames(frames))
}

/// An answer streams at its end.
fn appending(seconds: f64) -> Result<Frames> {
    let (mut screen, chat, last) = long_conversation()?;
    let library = screen.app.library_mut();
    let question = library.add(&chat, Some(last), Role::User, None, "And now?", None);
    let answer = library.add(&chat, question, Role::Assistant, None, "", Some(Answer::default()));
    let answer = answer.ok_or_else(|| anyhow!("the conversation takes no answer"))?;
    let mut frames = Vec::new();
    let begun = Instant::now();
    let mut sent = 0;
    for frame in 0.. {
        let now = begun.elapsed().as_secs_f64();
        if now > seconds {
            break;
        }
        let due = (now * TOKENS_A_SECOND) as usize;
        let text: String = (sent..due).map(|t| WORDS[t % WORDS.len()]).collect();
        sent = due;
        screen.app.library_mut().extend(&chat, answer, &text);
        frames.push(screen.frame());
        screen.pace(begun, frame + 1);
    }
    Ok(Frames(frames))
}

/// Tokens a second.
#[derive(Default)]
pub struct Speeds {
    /// The engine by itself.
    pub alone: Vec<f64>,
    /// In the app, experts hidden.
    pub hidden: Vec<f64>,
    /// In the app, experts shown.
    pub shown: Vec<f64>,
}

const STORY: &str = "Tell me a long story about a cat.";

/// One round of decoding with the embedded model: by itself, and in the app with experts hidden and shown.
pub fn decode(args: &WindowArgs, speeds: &mut Speeds) -> Result<()> {
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1)),
        n => n,
    };
    speeds.alone.push(alone(args, threads)?);
    speeds.hidden.push(in_app(args, threads, false)?);
    speeds.shown.push(in_app(args, threads, true)?);
    Ok(())
}

fn speed(stats: &GenerationStats) -> f64 {
    (stats.generated_tokens - 1) as f64 / stats.decode_seconds
}

/// The engine by itself, telling nobody which experts it used.
fn alone(args: &WindowArgs, threads: usize) -> Result<f64> {
    let checkpoint = Checkpoint::tiny()?;
    let settings = load_settings(args, threads);
    let options = EngineOptions {
        trace: false,
        ..pleiad_app::loading::options::engine(&settings, &checkpoint.config).map_err(|e| anyhow!("{e}"))?
    };
    let engine = Engine::start(pollster::block_on(load(&checkpoint, options, &mut |_, _| {}))?)?;
    let prompt = checkpoint.tokenizer.as_ref().ok_or_else(|| anyhow!("no vocabulary"))?.encode(STORY, true)?;
    let options = GenerateOptions { max_tokens: Some(args.n), ..GenerateOptions::default() };
    let session = engine.session();
    let mut generation = session.generate(prompt, SamplingParams::default(), options);
    while let Some(event) = generation.next_blocking() {
        match event {
            Said::Done { stats, .. } => return Ok(speed(&stats)),
            Said::Failed(e) => return Err(e.into()),
            _ => {}
        }
    }
    bail!("the engine ended without an answer")
}

fn load_settings(args: &WindowArgs, threads: usize) -> LoadSettings {
    LoadSettings { device: args.device.clone(), threads: Some(threads), ..LoadSettings::default() }
}

/// The same in the app, drawn 60 times a second.
fn in_app(args: &WindowArgs, threads: usize, experts: bool) -> Result<f64> {
    let settings = Settings { load: load_settings(args, threads), experts, ..Settings::default() };
    let sampling = Sampling { temperature: Some(1.0), seed: Some(7), ..Sampling::default() };
    let mut screen = opened(&settings, Setup { sampling, max_tokens: Some(args.n), ..Setup::default() })?;
    for _ in 0..WARM_UP {
        screen.frame();
    }
    let ctx = screen.ctx();
    // Answers of the embedded model are short: as many as it takes.
    let (mut tokens, mut seconds) = (0, 0.0);
    while tokens < args.n {
        screen.app.give(&ctx, Action::Send(STORY.into()));
        let begun = Instant::now();
        for frame in 1.. {
            screen.frame();
            screen.pace(begun, frame);
            if !screen.app.busy() {
                break;
            }
            if begun.elapsed().as_secs() > 300 {
                bail!("the answer does not end");
            }
        }
        let id = screen.app.open_chat().cloned().ok_or_else(|| anyhow!("no conversation is open"))?;
        let tree = &screen.app.library().peek(&id).ok_or_else(|| anyhow!("the conversation is gone"))?.tree;
        let stats = tree.leaf().and_then(|m| tree.get(m)).and_then(|m| m.answer.as_ref()).and_then(|a| a.stats);
        let stats = stats.ok_or_else(|| anyhow!("there is no answer"))?;
        tokens += stats.generated_tokens.saturating_sub(1);
        seconds += stats.decode_seconds;
    }
    Ok(tokens as f64 / seconds)
}
