//! The worker's side: a real engine, asked by messages.

use std::{
    cell::RefCell,
    collections::HashMap,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::message::{self, Asked, Flags, Greeting, Happened, Told};
use crate::{
    Error, Result,
    engine::{Engine, Event, GONE, MemoryUse, Session},
};

/// Answers the messages of a [`super::Remote`] with a real engine.
pub struct Host {
    pub(super) sessions: HashMap<u64, Session>,
    /// What cancels each generation under way.
    pub(super) running: Rc<RefCell<HashMap<u64, Arc<AtomicBool>>>>,
    post: Rc<RefCell<Post>>,
}

/// The way to the page, and what it knows already.
struct Post {
    engine: Engine,
    send: Box<dyn FnMut(Vec<u8>)>,
    /// The report that it has, as a message.
    experts: Vec<u8>,
    resident: Arc<[bool]>,
    memory: MemoryUse,
}

impl Host {
    /// `send` takes messages for the other side, in order; it must not call the host. [`Host::greeting`] has to be sent by other
    /// means, before them.
    pub fn new(engine: Engine, send: impl FnMut(Vec<u8>) + 'static) -> Self {
        let experts = message::encode(&Told::Experts(engine.experts()));
        let post = Post { resident: engine.resident(), memory: engine.memory(), experts, engine, send: Box::new(send) };
        Self { sessions: HashMap::new(), running: Rc::default(), post: Rc::new(RefCell::new(post)) }
    }

    /// What [`super::Remote::new`] needs to know of the engine.
    pub fn greeting(&self) -> Vec<u8> {
        let post = &mut *self.post.borrow_mut();
        (post.resident, post.memory) = (post.engine.resident(), post.engine.memory());
        let experts = post.engine.experts();
        let (info, resident) = (post.engine.info().clone(), Flags::of(&post.resident));
        let greeting = Greeting { info, resident, experts: experts.clone(), memory: post.memory };
        post.experts = message::encode(&Told::Experts(experts));
        message::encode(&greeting)
    }

    /// Takes a message of the other side. Futures that have to run until generations are over are given to `spawn`.
    ///
    /// # Errors
    /// Where it cannot be understood.
    pub fn take(&mut self, message: &[u8], spawn: &mut dyn FnMut(Pin<Box<dyn Future<Output = ()>>>)) -> Result<()> {
        match message::decode(message)? {
            Asked::Generate { number, session, prompt, sampling, options } => {
                let post = &self.post;
                let session = self.sessions.entry(session).or_insert_with(|| post.borrow().engine.session());
                let mut generation = session.generate(prompt, sampling, options);
                self.running.borrow_mut().insert(number, Arc::clone(&generation.cancelled));
                let (running, post) = (Rc::clone(&self.running), Rc::clone(post));
                spawn(Box::pin(async move {
                    loop {
                        let event = generation.next().await.unwrap_or_else(|| Event::Failed(Error::Stopped(GONE.into())));
                        let over = matches!(event, Event::Done { .. } | Event::Failed(_));
                        if over {
                            running.borrow_mut().remove(&number);
                        }
                        post.borrow_mut().tell(number, &event, over);
                        if over {
                            return;
                        }
                    }
                }));
            }
            Asked::Cancel(number) => {
                // One that is over has nothing to cancel.
                if let Some(cancelled) = self.running.borrow().get(&number) {
                    cancelled.store(true, Ordering::Relaxed);
                }
            }
            Asked::Close(session) => drop(self.sessions.remove(&session)),
        }
        Ok(())
    }

    /// Sends what has changed of what the engine shows. This is done with every event; between generations, it is for whoever
    /// knows of a change.
    pub fn refresh(&self) {
        let post = &mut *self.post.borrow_mut();
        post.tell_resident();
        post.tell_memory();
        post.tell_experts();
    }
}

impl Post {
    /// Sends an event, after what the engine shows since: who sees the event finds it there.
    fn tell(&mut self, number: u64, event: &Event, over: bool) {
        self.tell_resident();
        self.tell_memory();
        if over {
            self.tell_experts();
        }
        (self.send)(message::encode(&Told::Event(number, Happened::of(event))));
    }

    fn tell_resident(&mut self) {
        let resident = self.engine.resident();
        if resident != self.resident {
            (self.send)(message::encode(&Told::Resident(Flags::of(&resident))));
            self.resident = resident;
        }
    }

    fn tell_memory(&mut self) {
        let memory = self.engine.memory();
        if memory != self.memory {
            (self.send)(message::encode(&Told::Memory(memory)));
            self.memory = memory;
        }
    }

    fn tell_experts(&mut self) {
        let experts = message::encode(&Told::Experts(self.engine.experts()));
        if experts != self.experts {
            (self.send)(experts.clone());
            self.experts = experts;
        }
    }
}
