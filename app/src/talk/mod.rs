//! Answers under way: from a question to tokens in a conversation.
//!
//! | module | what it holds |
//! |---|---|
//! | [`talker`] | what people ask for: send, stop, regenerate, edit, continue |
//! | [`run`] | one generation, from its prompt to its last event |
//! | [`live`] | how far an answer is |
//! | [`thought`] | how long a model reasoned |
//! | [`prepare`] | what an answer needs before its generation begins |
//! | [`prompt`] | a path through a conversation as one mind sees it |
//! | [`places`] | which words of a conversation the tokens of a prompt are |
//! | [`duet`] | a second mind that reviews, or talks with the first |
//! | [`sessions`] | sessions kept between answers, so that the latent cache is reused |
//! | [`survey`] | prompt packs that are read to see which experts they use |
//! | [`seed`] | seeds for answers that have none of their own |

pub mod duet;
pub mod live;
pub mod places;
pub mod prepare;
pub mod prompt;
pub mod run;
pub mod seed;
pub mod sessions;
pub mod survey;
pub mod talker;
pub mod thought;

pub use live::Live;
pub use talker::{Notice, Talker};

#[cfg(test)]
mod tests;

/// The embedded model on the CPU, for tests.
#[cfg(test)]
mod tiny {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use std::sync::Arc;

    use pleiad_models::Checkpoint;
    use pleiad_runtime::{DeviceChoice, Engine, EngineOptions, engine::load as load_engine};

    use crate::{
        activity::Shape,
        conversation::{Conversation, Prompter},
    };

    pub(super) struct Tiny {
        pub engine: Engine,
        pub prompter: Arc<Prompter>,
        pub shape: Arc<Shape>,
    }

    impl Tiny {
        pub fn prompt(&self, question: &str) -> Vec<u32> {
            let mut conversation = Conversation::new(None);
            conversation.ask(question);
            self.prompter.prompt(&conversation).unwrap().ids
        }
    }

    pub(super) fn load() -> Tiny {
        let checkpoint = Checkpoint::tiny().unwrap();
        let options =
            EngineOptions { device: DeviceChoice::Cpu, threads: Some(1), trace: true, chunk: 16, ..EngineOptions::default() };
        let loaded = pollster::block_on(load_engine(&checkpoint, options, &mut |_, _| {})).unwrap();
        Tiny {
            engine: Engine::start(loaded).unwrap(),
            prompter: Arc::new(Prompter::new(&checkpoint).unwrap()),
            shape: Arc::new(Shape::of(&checkpoint.config, "tiny").unwrap()),
        }
    }
}
