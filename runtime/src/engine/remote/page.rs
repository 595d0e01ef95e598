//! The page's side: an engine's handle whose worker is elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use async_channel::{Receiver, Sender};
use pleiad_models::{Config, TextStream, Tokenizer};

use super::message::{self, Asked, Greeting, Happened, Told};
use crate::{
    Error, Result,
    engine::{Command, Engine, Event, GONE, MemoryUse, request::Request},
    experts::ExpertReport,
};

/// What stands behind an [`Engine`] whose work is done elsewhere. Dropping it fails what is under way, as [`Remote::lost`] does.
pub struct Remote {
    commands: Receiver<Command>,
    tokenizer: Option<Tokenizer>,
    running: Mutex<HashMap<u64, Running>>,
    /// Rung when a generation is over.
    over: (Sender<()>, Receiver<()>),
    experts: Arc<Mutex<Option<ExpertReport>>>,
    resident: Arc<Mutex<Arc<[bool]>>>,
    memory: Arc<Mutex<MemoryUse>>,
    /// Why the other side is out of reach.
    gone: Arc<OnceLock<String>>,
}

/// A generation under way.
struct Running {
    events: Sender<Event>,
    text: Option<TextStream>,
}

impl Remote {
    /// An engine from the greeting of a [`super::Host`]. The page decodes text itself: the worker has no tokenizer.
    ///
    /// # Errors
    /// Where the greeting cannot be understood.
    pub fn new(greeting: &[u8], config: Config, tokenizer: Option<Tokenizer>) -> Result<(Engine, Self)> {
        let Greeting { info, experts, resident, memory } = message::decode(greeting)?;
        let resident: Arc<[bool]> = resident.open()?.into();
        let (commands, received) = async_channel::unbounded();
        let gone = Arc::<OnceLock<String>>::default();
        let engine = Engine {
            commands,
            info: Arc::new(info),
            config: Arc::new(config),
            tokenizer: tokenizer.clone(),
            numbers: Arc::default(),
            experts: Arc::new(Mutex::new(experts)),
            resident: Arc::new(Mutex::new(resident)),
            memory: Arc::new(Mutex::new(memory)),
            elsewhere: Some(Arc::clone(&gone)),
        };
        let remote = Self {
            commands: received,
            tokenizer,
            running: Mutex::default(),
            over: async_channel::bounded(1),
            experts: Arc::clone(&engine.experts),
            resident: Arc::clone(&engine.resident),
            memory: Arc::clone(&engine.memory),
            gone,
        };
        Ok((engine, remote))
    }

    /// The next message for the other side; `None`: nobody has a handle any more and the last generation that somebody follows is
    /// over, or the other side was lost. It may be ended then.
    pub async fn next(&self) -> Option<Vec<u8>> {
        while let Ok(command) = self.commands.recv().await {
            if let Some(asked) = self.ask(command) {
                return Some(message::encode(&asked));
            }
        }
        // Sessions that were closed end their generations, with a word.
        self.running().retain(|_, r| !r.events.is_closed());
        while !self.running().is_empty() {
            // Both ends of this channel are here: it stays open.
            let _ = self.over.1.recv().await;
        }
        None
    }

    /// Takes a message of the other side.
    ///
    /// # Errors
    /// Where it cannot be understood.
    pub fn take(&self, message: &[u8]) -> Result<()> {
        match message::decode(message)? {
            Told::Event(number, happened) => self.happened(number, happened)?,
            Told::Experts(report) => *self.experts.lock().unwrap_or_else(PoisonError::into_inner) = report,
            Told::Memory(memory) => *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory,
            Told::Resident(flags) => {
                *self.resident.lock().unwrap_or_else(PoisonError::into_inner) = flags.open()?.into();
            }
        }
        Ok(())
    }

    /// The other side is gone: every generation fails with this error, and later ones at once.
    pub fn lost(&self, error: &Error) {
        let why = match error {
            Error::Stopped(why) => why.clone(),
            other => other.to_string(),
        };
        // The first reason is the reason.
        let _ = self.gone.set(why);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.ask(command);
        }
        for (_, running) in self.running().drain() {
            // Nobody may listen any more; nor below.
            let _ = running.events.try_send(Event::Failed(error.clone()));
        }
        let _ = self.over.0.try_send(());
    }

    /// What the other side is to be told of a command, if anything.
    fn ask(&self, command: Command) -> Option<Asked> {
        let mut running = self.running();
        if let Some(why) = self.gone.get() {
            if let Command::Generate(request) = command {
                let _ = request.events.try_send(Event::Failed(Error::Stopped(why.clone())));
            }
            return None;
        }
        match command {
            Command::Generate(Request { number, session, drafts: _, prompt, sampling, options, events, cancelled: _ }) => {
                running.insert(number, Running { events, text: self.tokenizer.as_ref().map(Tokenizer::stream) });
                Some(Asked::Generate { number, session, prompt, sampling, options })
            }
            // What is over has been dropped, which is no news.
            Command::Cancel(number) => running.contains_key(&number).then_some(Asked::Cancel(number)),
            Command::Close(session) => Some(Asked::Close(session)),
        }
    }

    /// Makes an event of what happened: tokens become text here.
    fn happened(&self, number: u64, happened: Happened) -> Result<()> {
        let mut running = self.running();
        let Some(generation) = running.get_mut(&number) else { return Ok(()) };
        let mut over = false;
        let event = match happened {
            Happened::Prompt(progress) => Event::Prompt(progress),
            Happened::Token { id, logit, activations, seconds } => {
                let text = generation.text.as_mut().map_or_else(String::new, |t| t.push(id));
                Event::Token { id, text, logit, activations: activations.map(Into::into), seconds }
            }
            Happened::Routed(rows) => Event::Routed(rows.open()?.into()),
            Happened::Notice(notice) => Event::Notice(notice),
            Happened::Done { reason, stats } => {
                over = true;
                let text = generation.text.take().map_or_else(String::new, TextStream::finish);
                Event::Done { reason, text, stats }
            }
            Happened::Failed(failure) => {
                over = true;
                Event::Failed(failure.into())
            }
        };
        let _ = generation.events.try_send(event);
        if over {
            running.remove(&number);
            // Where it has been rung already, nobody has heard it yet.
            let _ = self.over.0.try_send(());
        }
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.lost(&Error::Stopped(GONE.into()));
    }
}
