//! Loading beside the window, and all that is loaded.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, atomic::Ordering},
};

use web_time::Instant;

use super::{
    Examined, LoadedModel, Source, Wake,
    beside::{self, Freed, Leaving},
    job::{self, LOST, Mail, Meter, Opened, Order, Post, Ready, Stage},
};
use crate::settings::LoadSettings;

/// A model that is being loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Loading {
    /// Which.
    pub source: Source,
    /// What is being done, in words: "Reading weights", "Preparing kernels". Empty: nothing that could be told yet.
    pub doing: String,
    /// Bytes done of it; of kernels their number.
    pub done: u64,
    /// How many in all; 0: not known yet.
    pub total: u64,
    /// Seconds that this has taken so far.
    pub seconds: f64,
}

impl Loading {
    /// The share of it that is done, 0 to 1; `None`: not known yet.
    pub fn share(&self) -> Option<f64> {
        (self.total > 0).then(|| (self.done as f64 / self.total as f64).clamp(0.0, 1.0))
    }

    /// Whether what is done is counted in bytes.
    pub fn counts_bytes(&self) -> bool {
        !self.doing.contains("kernel")
    }
}

/// What became of something that was asked for.
#[derive(Clone, Debug)]
pub enum News {
    /// A model is ready; it is in [`Models::loaded`] now.
    Loaded(LoadedModel),
    /// It could not be loaded, in words. What was loaded before still is.
    Failed {
        /// Which.
        source: Source,
        /// Why.
        why: String,
    },
    /// A person stopped it.
    Cancelled(Source),
    /// A model was looked at, for its price.
    Examined(Examined),
    /// It could not be, in words.
    NotExamined {
        /// Which.
        source: Source,
        /// Why.
        why: String,
    },
}

/// All models that are loaded, the first being the one that new answers come from; and the one that is being loaded.
/// Nothing here waits: work is done beside the window, and [`Models::poll`] tells what became of it.
///
/// A model takes another's place in two steps. Its files are opened first: where that fails, nothing was let go. Then the
/// other is let go and its memory awaited, a few seconds at most, as it is only free once all clones and sessions are gone;
/// and the new one is loaded. Where that fails or is stopped, what was let go is loaded again.
pub struct Models {
    post: Post,
    loaded: Vec<LoadedModel>,
    /// For each of `loaded`: how to load it again, and what tells when its memory is free.
    kept: Vec<(LoadSettings, Arc<Freed>)>,
    job: Option<Job>,
    /// To be loaded after it.
    queue: VecDeque<Wanted>,
    /// What holds memory though nobody wants it any more.
    leaving: Vec<Leaving>,
    /// Of the latest job.
    serial: u64,
    /// The latest look at a model, and at which.
    look: (u64, Option<Source>),
    news: Vec<News>,
}

/// A model to be loaded.
#[derive(Clone, Debug)]
struct Wanted {
    source: Source,
    settings: LoadSettings,
    /// Beside the others.
    keep: bool,
    /// It was loaded before, at that place.
    again: Option<usize>,
}

/// A load under way.
struct Job {
    number: u64,
    wanted: Wanted,
    meter: Arc<Meter>,
    since: Instant,
    /// Set once weights are being loaded.
    freed: Option<Arc<Freed>>,
    /// What was let go for it.
    let_go: Vec<Wanted>,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loading = self.job.as_ref().map(|j| &j.wanted.source);
        f.debug_struct("Models").field("loaded", &self.loaded).field("loading", &loading).finish_non_exhaustive()
    }
}

impl Models {
    /// None yet.
    pub fn new(wake: Wake) -> Self {
        Self {
            post: Post::new(wake),
            loaded: Vec::new(),
            kept: Vec::new(),
            job: None,
            queue: VecDeque::new(),
            leaving: Vec::new(),
            serial: 0,
            look: (0, None),
            news: Vec::new(),
        }
    }

    /// Loads a model. `keep`: the others stay loaded (a second mind), else it takes their place: they are let go before it is
    /// loaded, since both might not fit, and come back by themselves if it fails.
    ///
    /// A model that is being loaded already is given up for it. One that is loaded already is loaded anew, as settings may
    /// have changed.
    pub fn load(&mut self, source: Source, settings: &LoadSettings, keep: bool) {
        if let Some(coming_back) = self.give_up().filter(|w| w.again.is_some()) {
            self.queue.push_front(coming_back);
        }
        if !keep {
            // What was to come back still does if this one fails.
            self.queue.retain(|w| w.again.is_some());
        }
        let wanted = Wanted { source, settings: settings.clone(), keep, again: None };
        if keep {
            self.queue.push_back(wanted);
        } else {
            self.queue.push_front(wanted);
        }
        self.next();
    }

    /// Stops what is being loaded. It is forgotten at once; the work itself goes on until the runtime has done its part, and
    /// what comes of it is dropped.
    pub fn cancel(&mut self) {
        if self.give_up().is_some() {
            self.next();
            (self.post.wake)();
        }
    }

    /// Looks at a model, for its price. Only the latest look counts.
    pub fn examine(&mut self, source: Source) {
        let number = self.look.0 + 1;
        self.look = (number, Some(source.clone()));
        let reply = self.post.reply(Mail::Looked(number, Err(format!("{}: {LOST}", source.name()))));
        // Where it cannot be done, `reply` says so when it is dropped.
        let _ = beside::spawn("pleiad-examine", move || async move {
            let examined = job::checkpoint(&source).await.map(|c| Box::new(Examined::of(source, &c)));
            reply.send(Mail::Looked(number, examined));
        });
    }

    /// Lets a model go.
    pub fn unload(&mut self, key: &str) {
        self.let_go(|m| m.key() == key);
    }

    /// What became of what was asked for.
    pub fn poll(&mut self) -> Vec<News> {
        for mail in self.post.take() {
            match mail {
                Mail::Opened(number, opened) => self.opened(number, opened),
                Mail::Ready(number, ready) => self.ready(number, ready),
                Mail::Looked(number, examined) => self.looked(number, examined),
            }
        }
        self.next();
        std::mem::take(&mut self.news)
    }

    /// What is being loaded.
    pub fn loading(&self) -> Option<Loading> {
        let job = self.job.as_ref()?;
        let Stage { doing, done, total, since } = job.meter.stage();
        let seconds = since.unwrap_or(job.since).elapsed().as_secs_f64();
        Some(Loading { source: job.wanted.source.clone(), doing, done, total, seconds })
    }

    /// Whether a model is being looked at.
    pub fn examining(&self) -> bool {
        self.look.1.is_some()
    }

    /// All that is loaded; the first answers unless another is named.
    pub fn loaded(&self) -> &[LoadedModel] {
        &self.loaded
    }

    /// The model of that key; `None` means the first.
    pub fn get(&self, key: Option<&str>) -> Option<&LoadedModel> {
        match key {
            None => self.loaded.first(),
            Some(key) => self.loaded.iter().find(|m| m.key() == key),
        }
    }

    /// Begins with the next model, where none is being loaded.
    fn next(&mut self) {
        if self.job.is_some() {
            return;
        }
        let Some(wanted) = self.queue.pop_front() else { return };
        self.serial += 1;
        let (number, source) = (self.serial, wanted.source.clone());
        let let_go = Vec::new();
        self.job = Some(Job { number, wanted, meter: Arc::default(), since: Instant::now(), freed: None, let_go });
        let reply = self.post.reply(Mail::Opened(number, Err(format!("{}: {LOST}", source.name()))));
        // Where it cannot be done, `reply` says so when it is dropped.
        let _ = beside::spawn("pleiad-open", move || async move {
            reply.send(Mail::Opened(number, job::open(&source).await.map(Box::new)));
        });
    }

    /// A model was opened: the others make room, and it is loaded.
    fn opened(&mut self, number: u64, opened: Result<Box<Opened>, String>) {
        let Some(mut job) = self.job.take_if(|j| j.number == number) else { return };
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => return self.fail(job, why),
        };
        let key = job.wanted.source.key();
        let keep = job.wanted.keep;
        job.let_go = self.let_go(|m| !keep || m.key() == key);
        if !keep {
            // What was still to come back makes room as well.
            job.let_go.extend(self.queue.drain(..));
        }
        self.leaving.retain(|l| !l.freed.is_set());
        let freed = Arc::new(Freed::default());
        job.freed = Some(Arc::clone(&freed));
        let order = Order {
            source: job.wanted.source.clone(),
            settings: job.wanted.settings.clone(),
            meter: Arc::clone(&job.meter),
            wake: Arc::clone(&self.post.wake),
            leaving: self.leaving.clone(),
            freed,
        };
        let name = job.wanted.source.name();
        self.job = Some(job);
        let reply = self.post.reply(Mail::Ready(number, Err(format!("{name}: {LOST}"))));
        let _ = beside::spawn("pleiad-load", move || async move {
            let ready = job::load(*opened, order).await;
            reply.send(Mail::Ready(number, ready.map(Box::new)));
        });
    }

    /// A model is ready, or is not.
    fn ready(&mut self, number: u64, ready: Result<Box<Ready>, String>) {
        // One that was cancelled is dropped here, and its engine ends.
        let Some(job) = self.job.take_if(|j| j.number == number) else { return };
        let Ready { model, freed } = match ready {
            Ok(ready) => *ready,
            Err(why) => return self.fail(job, why),
        };
        // It takes the place of its former self.
        let key = model.key();
        let former = job.let_go.iter().find(|w| w.source.key() == key).and_then(|w| w.again);
        let last = self.loaded.len();
        let place = job.wanted.again.or(former).filter(|_| job.wanted.keep).unwrap_or(last).min(last);
        self.loaded.insert(place, model.clone());
        self.kept.insert(place, (job.wanted.settings, freed));
        self.news.push(News::Loaded(model));
    }

    /// A load failed: what was let go for it comes back.
    fn fail(&mut self, job: Job, why: String) {
        self.news.push(News::Failed { source: job.wanted.source, why });
        self.come_back(job.let_go);
    }

    fn come_back(&mut self, let_go: Vec<Wanted>) {
        for wanted in let_go.into_iter().rev() {
            self.queue.push_front(wanted);
        }
    }

    /// Forgets what is being loaded, and says what it was.
    fn give_up(&mut self) -> Option<Wanted> {
        let job = self.job.take()?;
        job.meter.cancelled.store(true, Ordering::Relaxed);
        self.leaving.extend(job.freed.map(|freed| Leaving { freed, cancelled: true }));
        self.news.push(News::Cancelled(job.wanted.source.clone()));
        self.come_back(job.let_go);
        Some(job.wanted)
    }

    /// Lets models go, and says how to have them again.
    fn let_go(&mut self, which: impl Fn(&LoadedModel) -> bool) -> Vec<Wanted> {
        let mut gone = Vec::new();
        let all = std::mem::take(&mut self.loaded).into_iter().zip(std::mem::take(&mut self.kept));
        for (place, (model, (settings, freed))) in all.enumerate() {
            if which(&model) {
                self.leaving.push(Leaving { freed, cancelled: false });
                gone.push(Wanted { source: model.source, settings, keep: true, again: Some(place) });
            } else {
                self.loaded.push(model);
                self.kept.push((settings, freed));
            }
        }
        gone
    }

    fn looked(&mut self, number: u64, examined: Result<Box<Examined>, String>) {
        if number != self.look.0 {
            return;
        }
        let Some(source) = self.look.1.take() else { return };
        self.news.push(match examined {
            Ok(examined) => News::Examined(*examined),
            Err(why) => News::NotExamined { source, why },
        });
    }
}

#[cfg(test)]
mod tests;
