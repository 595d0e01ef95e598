#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use super::*;

fn message(id: u64, parent: Option<u64>) -> Message {
    Message {
        id: MessageId(id),
        parent: parent.map(MessageId),
        children: vec![MessageId(99)],
        shown: Some(MessageId(99)),
        role: Role::User,
        author: None,
        text: format!("m{id}"),
        created_ms: 0,
        rating: None,
        answer: None,
    }
}

fn tree(messages: &[(u64, Option<u64>)]) -> Tree {
    let mut tree = Tree::default();
    for &(id, parent) in messages {
        tree.push(message(id, parent)).unwrap();
    }
    tree
}

fn ids(path: &[MessageId]) -> Vec<u64> {
    path.iter().map(|id| id.0).collect()
}

/// The path that is shown, found anew.
fn slow_path(tree: &Tree) -> Vec<MessageId> {
    std::iter::successors(tree.shown, |&id| tree.get(id).unwrap().shown).collect()
}

#[test]
fn new_messages_are_shown_and_siblings_can_be_browsed() {
    // 1 - 2 - 5, 1 - 3 - 4, 6
    let mut t = tree(&[(1, None), (2, Some(1)), (3, Some(1)), (4, Some(3)), (5, Some(2))]);
    assert_eq!(ids(&t.path()), [1, 2, 5]);
    assert_eq!(t.siblings(MessageId(3)), ([MessageId(2), MessageId(3)].as_slice(), 1));
    assert!(t.show(MessageId(3)));
    assert_eq!(ids(&t.path()), [1, 3, 4]);
    t.push(message(6, None)).unwrap();
    assert_eq!((ids(&t.path()), t.leaf()), (vec![6], Some(MessageId(6))));
    assert_eq!(t.siblings(MessageId(1)), ([MessageId(1), MessageId(6)].as_slice(), 0));
    assert!(t.show_path_to(MessageId(2)));
    assert_eq!(ids(t.shown_path()), [1, 2, 5]);
    assert_eq!(ids(&t.path_to(MessageId(4))), [1, 3, 4]);
    assert!(!t.show(MessageId(7)) && !t.show_path_to(MessageId(7)));
    assert_eq!(t.path_to(MessageId(7)), []);
    assert_eq!(t.siblings(MessageId(7)), ([].as_slice(), 0));
}

#[test]
fn a_choice_that_is_out_of_sight_is_kept() {
    let mut t = tree(&[(1, None), (2, Some(1)), (3, Some(2)), (4, Some(2)), (5, None)]);
    t.show(MessageId(3));
    assert_eq!(ids(&t.path()), [5]);
    t.show(MessageId(1));
    assert_eq!(ids(&t.path()), [1, 2, 3]);
}

#[test]
fn what_cannot_be_a_tree_is_refused() {
    let mut t = tree(&[(1, None), (5, Some(1))]);
    for (id, parent) in [(5, Some(1)), (6, Some(6)), (6, Some(7)), (6, Some(3)), (2, Some(5)), (u64::MAX, None)] {
        assert!(t.push(message(id, parent)).is_err(), "{id} {parent:?}");
    }
    assert_eq!((t.len(), ids(&t.path())), (2, vec![1, 5]));
    // Two programs that write the same conversation: later lines may have smaller ids.
    t.push(message(3, Some(1))).unwrap();
    assert_eq!(t.siblings(MessageId(5)), ([MessageId(3), MessageId(5)].as_slice(), 1));
    assert_eq!(ids(&t.path()), [1, 3]);
}

#[test]
fn the_kept_path_is_the_path() {
    let mut state = 7u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    for _ in 0..40 {
        let mut t = Tree::default();
        for id in 1..120 {
            let parent = random(id);
            t.push(message(id, (parent > 0).then_some(parent))).unwrap();
            assert_eq!(t.leaf(), Some(MessageId(id)));
            assert_eq!(t.path(), slow_path(&t));
            let other = MessageId(1 + random(id));
            if random(2) == 0 {
                t.show(other);
            } else {
                t.show_path_to(other);
                assert!(t.path().contains(&other));
            }
            assert_eq!(t.path(), slow_path(&t));
            assert!(t.path().is_sorted());
        }
    }
}

#[test]
fn long_conversations() {
    let mut t = Tree::default();
    for id in 1..=20_000 {
        t.push(message(id, (id > 1).then(|| id - 1))).unwrap();
    }
    // Quadratic work would take minutes.
    let seen: usize = (0..2_000).map(|_| t.shown_path().iter().filter(|id| t.get(**id).is_some()).count() / 1000).sum();
    assert_eq!(seen, 40_000);
    assert_eq!(t.path_to(MessageId(20_000)).len(), 20_000);
}

#[test]
fn speeds_and_rates() {
    let mut answer = Answer::default();
    assert_eq!((answer.tokens_per_second(), answer.hit_rate()), (None, None));
    let mut stats = GenerationStats { generated_tokens: 11, decode_seconds: 2.0, ..GenerationStats::default() };
    stats.decode_device.expert_hits = 3;
    stats.decode_device.expert_misses = 1;
    answer.stats = Some(stats);
    assert_eq!((answer.tokens_per_second(), answer.hit_rate()), (Some(5.0), Some(0.75)));
    answer.sampled.temperature = f32::NAN;
    assert_eq!(answer.finite().sampled.temperature, 0.0);
}
