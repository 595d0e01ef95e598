//! Which launch of a list waits for which, where several devices share the work.
//!
//! Each device has a stream, and what it does is in order. Between devices a launch waits for those before it in the list that
//! touch the same buffers, if one of the two writes there: so that it sees what the list, run one launch after the other, would
//! have it see. The list begins after all that was asked for before, and what is asked for later begins after its end: the first
//! device's stream stands for all.

use std::collections::HashMap;

use super::driver::{Launch, Touch, Use};

/// What streams are told, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Starts the launch of that index on its device.
    Launch(usize),
    /// The event is over when all is done that the device was told before.
    Record {
        /// Whose stream.
        device: usize,
        /// Numbered within a list, from 0.
        event: usize,
    },
    /// The device goes on when the event, recorded before, is over.
    Wait {
        /// Whose stream.
        device: usize,
        /// Which event.
        event: usize,
    },
}

/// Accesses that need no order among themselves, and those that they all come after.
#[derive(Default)]
struct Phase {
    how: Option<Use>,
    members: Vec<usize>,
    before: Vec<usize>,
}

impl Phase {
    /// The accesses that this one comes after.
    fn access(&mut self, launch: usize, how: Use) -> &[usize] {
        if self.how != Some(how) || how == Use::Write {
            self.before = std::mem::take(&mut self.members);
            self.how = Some(how);
        }
        self.members.push(launch);
        &self.before
    }
}

/// For each launch those on other devices that it comes after, directly or not.
fn dependencies(launches: &[Launch]) -> Vec<Vec<usize>> {
    let mut buffers: HashMap<u64, Phase> = HashMap::new();
    let mut all = Vec::with_capacity(launches.len());
    for (index, launch) in launches.iter().enumerate() {
        let mut touches: HashMap<u64, Use> = HashMap::with_capacity(launch.touches.len());
        for &Touch { address, how } in launch.touches.iter() {
            let known = touches.entry(address).or_insert(how);
            if *known != how {
                *known = Use::Write;
            }
        }
        let mut after = Vec::new();
        for (address, how) in touches {
            after.extend_from_slice(buffers.entry(address).or_default().access(index, how));
        }
        after.retain(|&other| launches[other].device != launch.device);
        // The latest first: they may have waited for the others.
        after.sort_unstable_by(|a, b| b.cmp(a));
        after.dedup();
        all.push(after);
    }
    all
}

/// What streams are told to run a list of launches. On one device, the first: to launch, and nothing else.
pub fn commands(launches: &[Launch]) -> Vec<Command> {
    let devices = launches.iter().map(|l| l.device + 1).max().unwrap_or(1);
    if devices == 1 {
        return (0..launches.len()).map(Command::Launch).collect();
    }
    // known[d][k]: so many launches of device k are done before device d goes on.
    let mut known = vec![vec![0usize; devices]; devices];
    let mut at: Vec<Vec<usize>> = Vec::with_capacity(launches.len());
    let mut waits = Vec::with_capacity(launches.len());
    let mut awaited = vec![false; launches.len()];
    for (launch, after) in launches.iter().zip(dependencies(launches)) {
        let mut needed = Vec::new();
        for other in after {
            let device = launches[other].device;
            if known[launch.device][device] < at[other][device] {
                known[launch.device].iter_mut().zip(&at[other]).for_each(|(mine, &theirs)| *mine = theirs.max(*mine));
                awaited[other] = true;
                needed.push(other);
            }
        }
        known[launch.device][launch.device] += 1;
        at.push(known[launch.device].clone());
        waits.push(needed);
    }
    let others: Vec<usize> = (1..devices).filter(|&d| launches.iter().any(|l| l.device == d)).collect();
    // Event 0 is the list's beginning; then one for each launch that others wait for, and one for each device's end.
    let mut list = vec![Command::Record { device: 0, event: 0 }];
    list.extend(others.iter().map(|&device| Command::Wait { device, event: 0 }));
    let mut events = 1;
    let mut event_of = vec![0; launches.len()];
    for (index, (launch, needed)) in launches.iter().zip(waits).enumerate() {
        let device = launch.device;
        list.extend(needed.into_iter().map(|other| Command::Wait { device, event: event_of[other] }));
        list.push(Command::Launch(index));
        if awaited[index] {
            event_of[index] = events;
            list.push(Command::Record { device, event: events });
            events += 1;
        }
    }
    for device in others {
        list.push(Command::Record { device, event: events });
        list.push(Command::Wait { device: 0, event: events });
        events += 1;
    }
    list
}

/// How many events a list has.
pub fn events(commands: &[Command]) -> usize {
    let recorded = commands.iter().filter_map(|c| if let Command::Record { event, .. } = c { Some(event + 1) } else { None });
    recorded.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{
        super::driver::Function,
        Command::{Launch as Run, Record, Wait},
        *,
    };

    fn launch(device: usize, touches: &[(u64, Use)]) -> Launch {
        let touches = touches.iter().map(|&(address, how)| Touch { address, how }).collect();
        Launch { device, function: Function(0), grid: [1; 3], threads: 32, shared: 0, arguments: [].into(), touches }
    }

    use Use::{Part, Read, Write};

    #[test]
    fn one_device_needs_no_events() {
        let list = [launch(0, &[(1, Write)]), launch(0, &[(1, Read), (2, Write)])];
        assert_eq!(commands(&list), [Run(0), Run(1)]);
        assert_eq!(events(&commands(&list)), 0);
        assert_eq!(commands(&[]), []);
    }

    #[test]
    fn readers_wait_for_writers_and_writers_for_readers() {
        let list = [
            launch(0, &[(1, Write)]),
            launch(1, &[(1, Read), (2, Part)]),
            launch(0, &[(1, Read), (2, Part)]),
            launch(0, &[(2, Read)]),
            launch(0, &[(1, Write)]),
        ];
        let expected = [
            Record { device: 0, event: 0 },
            Wait { device: 1, event: 0 },
            Run(0),
            Record { device: 0, event: 1 },
            Wait { device: 1, event: 1 },
            Run(1),
            Record { device: 1, event: 2 },
            // Parts of a buffer are written at the same time.
            Run(2),
            Wait { device: 0, event: 2 },
            Run(3),
            // That the other device has read buffer 1 is known by now.
            Run(4),
            Record { device: 1, event: 3 },
            Wait { device: 0, event: 3 },
        ];
        assert_eq!(commands(&list), expected);
        assert_eq!(events(&expected), 4);
    }

    #[test]
    fn what_is_known_through_another_device_is_not_waited_for() {
        let list = [
            launch(1, &[(1, Write)]),
            launch(2, &[(1, Read), (2, Write)]),
            launch(0, &[(2, Read), (1, Read)]),
            launch(1, &[(3, Write), (3, Read)]),
        ];
        let found = commands(&list);
        let waits = found.iter().filter(|c| matches!(c, Wait { event, .. } if *event > 0)).count();
        // Device 2 for 1, device 0 for 2; and both at the end.
        assert_eq!(waits, 4, "{found:?}");
    }

    /// Whether `b` comes after `a` in every order that streams may take.
    fn ordered(list: &[Launch], commands: &[Command], a: usize, b: usize) -> bool {
        let devices = list.iter().map(|l| l.device + 1).max().unwrap_or(1);
        // Whether a device, or an event, comes after `a`.
        let (mut device_after, mut event_after) = (vec![false; devices], vec![false; events(commands)]);
        for c in commands {
            match *c {
                Run(i) if i == a => device_after[list[i].device] = true,
                Run(i) if i == b => return device_after[list[i].device],
                Run(_) => {}
                Record { device, event } => event_after[event] = device_after[device],
                Wait { device, event } => device_after[device] |= event_after[event],
            }
        }
        false
    }

    proptest::proptest! {
        #[test]
        fn conflicts_are_ordered(
            list in proptest::collection::vec((0usize..4, proptest::collection::vec((0u64..4, 0usize..3), 0..3)), 1..14)
        ) {
            let how = [Read, Write, Part];
            let list: Vec<Launch> = list.into_iter().map(|(device, touches)| {
                launch(device, &touches.into_iter().map(|(address, n)| (address, how[n])).collect::<Vec<_>>())
            }).collect();
            let commands = commands(&list);
            for b in 0..list.len() {
                for a in 0..b {
                    let pairs = || list[a].touches.iter().flat_map(|x| list[b].touches.iter().map(move |y| (x, y)));
                    let conflict = pairs().any(|(x, y)| x.address == y.address && (x.how != y.how || x.how == Write));
                    proptest::prop_assert!(
                        !conflict || list[a].device == list[b].device || ordered(&list, &commands, a, b),
                        "{} and {} of {:?}: {:?}", a, b, list, commands
                    );
                }
            }
        }
    }
}
