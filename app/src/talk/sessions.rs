//! Sessions kept between answers, so that the latent cache is reused.

use pleiad_runtime::{Engine, Session};

use super::duet::Mind;
use crate::chats::ChatId;

/// What a session is for. Each mind has its own, because their prompts differ from the first token on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The model's key.
    pub model: String,
    /// The conversation.
    pub chat: ChatId,
    /// Who answers.
    pub mind: Mind,
}

/// Sessions kept between answers, a handful: pages of the latent cache are shared by all.
#[derive(Default)]
pub struct Sessions {
    /// The one used last is the last.
    all: Vec<(Key, Session)>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all.iter().map(|(key, _)| key)).finish()
    }
}

/// Whether two handles are of one engine: its information is kept once.
pub fn same(a: &Engine, b: &Engine) -> bool {
    std::ptr::eq(a.info(), b.info())
}

impl Sessions {
    /// Sessions that are kept where no answer is under way in them.
    pub const MOST: usize = 6;

    /// The session of that key on that engine, a new one if need be. Another makes room for it, unless `busy`.
    pub fn open(&mut self, key: &Key, engine: &Engine, busy: &dyn Fn(&Key) -> bool) -> &Session {
        let known = self.all.iter().position(|(k, _)| k == key).map(|at| self.all.remove(at).1);
        let session = known.filter(|s| same(s.engine(), engine));
        while self.all.len() >= Self::MOST {
            let Some(idle) = self.all.iter().position(|(k, _)| !busy(k)) else { break };
            self.all.remove(idle);
        }
        let place = self.all.len();
        self.all.push((key.clone(), session.unwrap_or_else(|| engine.session())));
        &self.all[place].1
    }

    /// The session of that key.
    pub fn get(&self, key: &Key) -> Option<&Session> {
        self.all.iter().find(|(k, _)| k == key).map(|(_, session)| session)
    }

    /// Lets sessions go, all but those of these engines.
    pub fn keep(&mut self, loaded: &dyn Fn(&Engine) -> bool) {
        self.all.retain(|(_, session)| loaded(session.engine()));
    }

    /// Lets the sessions of a conversation go.
    pub fn forget(&mut self, chat: &ChatId) {
        self.all.retain(|(key, _)| key.chat != *chat);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tiny, *};

    fn key(chat: usize) -> Key {
        Key { model: "tiny".into(), chat: ChatId(chat.to_string()), mind: Mind::First }
    }

    #[test]
    fn keeps_a_handful_the_ones_used_last() {
        let engine = tiny::load().engine;
        let mut sessions = Sessions::default();
        for i in 0..Sessions::MOST {
            sessions.open(&key(i), &engine, &|_| false);
        }
        // The second is oldest now, but an answer is under way in it.
        sessions.open(&key(0), &engine, &|_| false);
        sessions.open(&key(100), &engine, &|k| *k == key(1));
        assert_eq!(sessions.all.len(), Sessions::MOST);
        let held: Vec<bool> = [0, 1, 2, 3, 100].map(|i| sessions.get(&key(i)).is_some()).into();
        assert_eq!(held, [true, true, false, true, true]);
        // Where all are busy, there are more for a while.
        sessions.open(&key(101), &engine, &|_| true);
        assert_eq!(sessions.all.len(), Sessions::MOST + 1);
        sessions.open(&key(102), &engine, &|_| false);
        assert_eq!(sessions.all.len(), Sessions::MOST);
        sessions.forget(&ChatId("102".into()));
        assert!(sessions.get(&key(102)).is_none());
    }

    #[test]
    fn a_model_that_was_loaded_anew_has_new_sessions() {
        let (old, new) = (tiny::load().engine, tiny::load().engine);
        let mut sessions = Sessions::default();
        sessions.open(&key(0), &old, &|_| false);
        assert!(same(sessions.open(&key(0), &old.clone(), &|_| false).engine(), &old));
        assert!(same(sessions.open(&key(0), &new, &|_| false).engine(), &new));
        assert_eq!(sessions.all.len(), 1);
        sessions.open(&key(1), &old, &|_| false);
        sessions.keep(&|engine| same(engine, &new));
        assert!(sessions.get(&key(0)).is_some() && sessions.get(&key(1)).is_none());
    }
}
