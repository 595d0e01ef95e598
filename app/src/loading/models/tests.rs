#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use pleiad_runtime::{Event, GenerateOptions, SamplingParams};

use super::*;
use crate::conversation::Conversation;

fn on_cpu() -> LoadSettings {
    LoadSettings { device: "cpu".into(), context: Some(512), threads: Some(2), ..LoadSettings::default() }
}

/// Models, and a count of how often the window was woken.
fn models() -> (Models, Arc<AtomicUsize>) {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let wake: Wake = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    (Models::new(wake), woken)
}

/// Waits until nothing is being loaded or looked at; all news until then.
fn settle(models: &mut Models) -> Vec<News> {
    let start = Instant::now();
    let mut news = Vec::new();
    loop {
        news.extend(models.poll());
        if models.loading().is_none() && !models.examining() {
            return news;
        }
        assert!(start.elapsed().as_secs() < 120, "it takes too long: {news:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// News in short.
fn short(news: &[News]) -> Vec<String> {
    let short = |n: &News| match n {
        News::Loaded(m) => format!("loaded {}", m.key()),
        News::Failed { source, .. } => format!("failed {}", source.key()),
        News::Cancelled(source) => format!("cancelled {}", source.key()),
        News::Examined(e) => format!("examined {}", e.source.key()),
        News::NotExamined { source, .. } => format!("not examined {}", source.key()),
    };
    news.iter().map(short).collect()
}

/// The embedded model as a file, so that there are two models to tell apart.
fn file(name: &str) -> Source {
    let path = std::env::temp_dir().join(format!("pleiad-models-{}-{name}.gguf", std::process::id()));
    std::fs::write(&path, pleiad_models::TINY_GGUF).unwrap();
    Source::Path(path)
}

fn remove(source: &Source) {
    if let Source::Path(path) = source {
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn a_model_is_loaded_and_answers() {
    let (mut models, woken) = models();
    assert!(models.get(None).is_none() && models.loading().is_none());
    models.load(Source::Tiny, &on_cpu(), false);
    assert_eq!(models.loading().map(|l| l.source), Some(Source::Tiny));
    assert_eq!(short(&settle(&mut models)), ["loaded tiny"]);
    assert!(woken.load(Ordering::SeqCst) >= 2);
    let model = models.get(Some("tiny")).unwrap();
    assert_eq!((model.context(), model.name.as_str(), model.notice.as_deref()), (512, "Embedded model", None));
    assert!(!model.end.is_empty() && model.shape.as_ref().unwrap().experts > 0);
    let mut said = Conversation::new(None);
    said.ask("What is the capital of France?");
    let prompt = model.prompter.prompt(&said).unwrap().ids;
    let session = model.engine.session();
    let options = GenerateOptions { max_tokens: Some(4), ..GenerateOptions::default() };
    let mut answer = session.generate(prompt, SamplingParams::default(), options);
    let mut routed = 0;
    while let Some(event) = answer.next_blocking() {
        match event {
            Event::Routed(rows) => routed += rows.len(),
            Event::Failed(e) => panic!("{e}"),
            _ => {}
        }
    }
    assert!(routed > 0, "engines of the app tell which experts tokens chose");
}

#[test]
fn a_model_that_cannot_be_opened_moves_nobody() {
    let (mut models, _) = models();
    models.load(Source::Tiny, &on_cpu(), false);
    settle(&mut models);
    let nowhere = Source::Path(PathBuf::from("nowhere/model.gguf"));
    models.load(nowhere, &on_cpu(), false);
    let news = settle(&mut models);
    assert_eq!(short(&news), ["failed nowhere/model.gguf"]);
    assert!(matches!(&news[0], News::Failed { why, .. } if why.contains("nowhere") && why.contains("no such file")));
    assert_eq!(models.loaded().len(), 1);
}

#[test]
fn what_was_let_go_comes_back_when_the_new_one_fails() {
    let (mut models, _) = models();
    let other = file("fails");
    models.load(Source::Tiny, &on_cpu(), false);
    settle(&mut models);
    models.load(other.clone(), &LoadSettings { device: "cuda".into(), ..on_cpu() }, false);
    let news = settle(&mut models);
    assert_eq!(short(&news), [format!("failed {}", other.key()), "loaded tiny".into()]);
    assert!(matches!(&news[0], News::Failed { why, .. } if why.contains("CUDA")));
    assert_eq!(models.loaded().iter().map(LoadedModel::key).collect::<Vec<_>>(), ["tiny"]);
    assert_eq!(models.get(None).unwrap().context(), 512, "with the settings it had");
    remove(&other);
}

#[test]
fn a_model_takes_anothers_place_or_stands_beside_it() {
    let (mut models, _) = models();
    let other = file("beside");
    models.load(Source::Tiny, &on_cpu(), false);
    settle(&mut models);
    models.load(other.clone(), &on_cpu(), true);
    assert_eq!(short(&settle(&mut models)), [format!("loaded {}", other.key())]);
    let keys = |m: &Models| m.loaded().iter().map(LoadedModel::key).collect::<Vec<_>>();
    assert_eq!(keys(&models), ["tiny".into(), other.key()]);
    // Loaded anew beside the other, it keeps its place.
    models.load(Source::Tiny, &LoadSettings { context: Some(256), ..on_cpu() }, true);
    settle(&mut models);
    assert_eq!((keys(&models), models.get(None).unwrap().context()), (vec!["tiny".into(), other.key()], 256));
    let freed: Vec<_> = models.kept.iter().map(|(_, freed)| Arc::clone(freed)).collect();
    models.load(other.clone(), &on_cpu(), false);
    settle(&mut models);
    assert_eq!(keys(&models), [other.key()]);
    assert!(freed.iter().all(|f| f.is_set()), "the memory of both was free before");
    models.unload(&other.key());
    assert!(models.loaded().is_empty() && models.poll().is_empty());
    remove(&other);
}

#[test]
fn loading_can_be_stopped_and_what_was_there_comes_back() {
    let (mut models, _) = models();
    let other = file("stopped");
    models.cancel();
    assert!(models.poll().is_empty());
    models.load(Source::Tiny, &on_cpu(), false);
    models.cancel();
    assert!(models.loading().is_none());
    assert_eq!(short(&models.poll()), ["cancelled tiny"]);
    models.load(Source::Tiny, &on_cpu(), false);
    assert_eq!(short(&settle(&mut models)), ["loaded tiny"]);
    // Stopped when the first has been let go.
    models.load(other.clone(), &on_cpu(), false);
    while !models.loaded().is_empty() {
        models.poll();
        std::thread::sleep(Duration::from_millis(1));
    }
    models.cancel();
    assert_eq!(models.loading().map(|l| l.source), Some(Source::Tiny));
    assert_eq!(short(&settle(&mut models)), [format!("cancelled {}", other.key()), "loaded tiny".into()]);
    remove(&other);
}

#[test]
fn the_latest_wish_counts() {
    let (mut models, _) = models();
    let (a, b) = (file("a"), file("b"));
    models.load(Source::Tiny, &on_cpu(), false);
    settle(&mut models);
    models.load(a.clone(), &on_cpu(), false);
    models.load(b.clone(), &on_cpu(), false);
    assert_eq!(short(&settle(&mut models)), [format!("cancelled {}", a.key()), format!("loaded {}", b.key())]);
    assert_eq!(models.loaded().iter().map(LoadedModel::key).collect::<Vec<_>>(), [b.key()]);
    remove(&a);
    remove(&b);
}

#[test]
fn models_are_looked_at() {
    let (mut models, _) = models();
    let nonsense = std::env::temp_dir().join(format!("pleiad-models-{}-nonsense.gguf", std::process::id()));
    std::fs::write(&nonsense, b"this is no model").unwrap();
    models.examine(Source::Path(nonsense.clone()));
    let news = settle(&mut models);
    assert!(matches!(&news[..], [News::NotExamined { why, .. }] if why.contains("nonsense")), "{news:?}");
    models.examine(Source::Path(nonsense.clone()));
    models.examine(Source::Tiny);
    assert_eq!(short(&settle(&mut models)), ["examined tiny"], "only the latest look counts");
    assert!(models.loaded().is_empty());
    std::fs::remove_file(nonsense).unwrap();
}
