//! A pool of threads that share the tasks of one call at a time.
//!
//! Between calls workers spin for a while, so that the next call starts them within a fraction of a microsecond,
//! then they sleep. Tasks are claimed one at a time from a counter, so that a thread that the system holds up does
//! not hold up the others.

/// Runs the tasks of one call on several threads.
pub struct Pool {
    #[cfg(not(target_arch = "wasm32"))]
    threads: threads::Threads,
}

impl Pool {
    /// A pool of `threads` threads, the caller included; `None` means one for each processor.
    pub fn new(threads: Option<usize>) -> Self {
        #[cfg(not(target_arch = "wasm32"))]
        {
            let all = || std::thread::available_parallelism().map_or(1, |n| n.get());
            Self { threads: threads::Threads::new(threads.unwrap_or_else(all).clamp(1, 1024)) }
        }
        #[cfg(target_arch = "wasm32")]
        {
            let _ = threads;
            Self {}
        }
    }

    /// Threads that work on a call, the caller included.
    pub fn threads(&self) -> usize {
        #[cfg(not(target_arch = "wasm32"))]
        {
            self.threads.count()
        }
        #[cfg(target_arch = "wasm32")]
        {
            1
        }
    }

    /// Runs `task(i)` for every i in `0..tasks` and returns when all are done. A panic of a task is passed on once
    /// the others are done. A call from inside a task, or while another thread's call is under way, runs on the
    /// calling thread alone.
    pub fn parallel(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        #[cfg(not(target_arch = "wasm32"))]
        self.threads.parallel(tasks, task);
        #[cfg(target_arch = "wasm32")]
        (0..tasks).for_each(task);
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod threads {
    use std::any::Any;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
    use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    /// How long a worker spins for the next call before it sleeps.
    const SPIN: Duration = Duration::from_micros(100);

    /// The index that stands for "no tasks to be had yet".
    const CLOSED: u32 = u32::MAX;

    type Call = unsafe fn(*const (), usize);

    struct Shared {
        /// Number of the call (upper half) and its next unclaimed task (lower half), claimed by compare-and-swap: a
        /// worker that is late cannot claim a task of a call that is over.
        state: AtomicU64,
        /// Of the call: the closure, the function that calls it (a [`Call`]), the number of tasks.
        data: AtomicPtr<()>,
        call: AtomicPtr<()>,
        tasks: AtomicUsize,
        /// Tasks that are done.
        done: AtomicUsize,
        /// Whether a call is under way.
        busy: AtomicBool,
        stop: AtomicBool,
        sleepers: AtomicUsize,
        lock: Mutex<()>,
        wake: Condvar,
        /// What the first task that panicked left.
        panic: Mutex<Option<Box<dyn Any + Send>>>,
    }

    pub(super) struct Threads {
        shared: Arc<Shared>,
        workers: Vec<JoinHandle<()>>,
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn state(call: u32, next: u32) -> u64 {
        (call as u64) << 32 | next as u64
    }

    impl Shared {
        /// Claims and runs tasks of call number `number` until none is left.
        fn work(&self, number: u32) {
            loop {
                let now = self.state.load(Acquire);
                // The description of the call is written while the state is closed, so if any of these three loads
                // saw a later call's value, the state has moved on and the exchange below fails.
                let (tasks, data, call) = (self.tasks.load(Acquire), self.data.load(Acquire), self.call.load(Acquire));
                if (now >> 32) as u32 != number || now as u32 as usize >= tasks {
                    return;
                }
                if self.state.compare_exchange_weak(now, now + 1, AcqRel, Relaxed).is_err() {
                    continue;
                }
                // SAFETY: `call` was made from a `Call` and `data` from the closure that it expects. The closure lives
                // until every claimed task is counted as done.
                let result = catch_unwind(AssertUnwindSafe(|| unsafe {
                    let call = std::mem::transmute::<*mut (), Call>(call);
                    call(data, now as u32 as usize);
                }));
                if let Err(payload) = result {
                    lock(&self.panic).get_or_insert(payload);
                }
                self.done.fetch_add(1, Release);
            }
        }

        /// A worker's life.
        fn serve(&self) {
            let mut seen = 0;
            loop {
                let mut spins = 0u32;
                let mut since = None;
                let number = loop {
                    let now = self.state.load(Acquire);
                    let number = (now >> 32) as u32;
                    if number != seen && now as u32 != CLOSED {
                        break number;
                    }
                    if self.stop.load(Relaxed) {
                        return;
                    }
                    std::hint::spin_loop();
                    spins += 1;
                    if spins.is_multiple_of(64) && since.get_or_insert_with(Instant::now).elapsed() > SPIN {
                        let mut guard = lock(&self.lock);
                        // The caller publishes, then looks for sleepers; a worker announces itself, then looks at the
                        // state: one of them sees the other.
                        self.sleepers.fetch_add(1, SeqCst);
                        while !self.stop.load(SeqCst) && self.state.load(SeqCst) == now {
                            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                        }
                        self.sleepers.fetch_sub(1, SeqCst);
                        since = None;
                    }
                };
                self.work(number);
                seen = number;
            }
        }
    }

    /// Calls the closure behind `data`.
    ///
    /// # Safety
    /// `data` points to a live `F`.
    unsafe fn call<F: Fn(usize)>(data: *const (), task: usize) {
        // SAFETY: as above.
        unsafe { (*data.cast::<F>())(task) }
    }

    impl Threads {
        pub(super) fn new(threads: usize) -> Self {
            let shared = Arc::new(Shared {
                state: AtomicU64::new(state(0, CLOSED)),
                data: AtomicPtr::new(std::ptr::null_mut()),
                call: AtomicPtr::new(std::ptr::null_mut()),
                tasks: AtomicUsize::new(0),
                done: AtomicUsize::new(0),
                busy: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                sleepers: AtomicUsize::new(0),
                lock: Mutex::new(()),
                wake: Condvar::new(),
                panic: Mutex::new(None),
            });
            let workers = (1..threads)
                .map_while(|i| {
                    let shared = shared.clone();
                    // A system that refuses more threads gets a smaller pool.
                    std::thread::Builder::new().name(format!("pleiad-cpu-{i}")).spawn(move || shared.serve()).ok()
                })
                .collect();
            Self { shared, workers }
        }

        pub(super) fn count(&self) -> usize {
            self.workers.len() + 1
        }

        pub(super) fn parallel<F: Fn(usize) + Sync>(&self, tasks: usize, task: F) {
            let shared = &*self.shared;
            if tasks <= 1 || self.workers.is_empty() || shared.busy.swap(true, Acquire) {
                (0..tasks).for_each(task);
                return;
            }
            assert!(tasks < CLOSED as usize, "{tasks} tasks in one call");
            let number = ((shared.state.load(Relaxed) >> 32) as u32).wrapping_add(1);
            shared.state.store(state(number, CLOSED), SeqCst);
            shared.tasks.store(tasks, Release);
            shared.data.store((&raw const task).cast_mut().cast(), Release);
            shared.call.store(call::<F> as Call as *mut (), Release);
            shared.done.store(0, Release);
            shared.state.store(state(number, 0), SeqCst);
            if shared.sleepers.load(SeqCst) > 0 {
                let _guard = lock(&shared.lock);
                shared.wake.notify_all();
            }
            shared.work(number);
            let mut spins = 0u32;
            while shared.done.load(Acquire) != tasks {
                std::hint::spin_loop();
                spins += 1;
                // Perhaps the others wait for this thread's processor.
                if spins.is_multiple_of(1024) {
                    std::thread::yield_now();
                }
            }
            let panic = lock(&shared.panic).take();
            shared.busy.store(false, Release);
            if let Some(payload) = panic {
                resume_unwind(payload);
            }
        }
    }

    impl Drop for Threads {
        fn drop(&mut self) {
            self.shared.stop.store(true, SeqCst);
            drop(lock(&self.shared.lock));
            self.shared.wake.notify_all();
            for worker in self.workers.drain(..) {
                let _ = worker.join();
            }
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn every_task_runs_once_over_many_calls() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(Some(threads));
            for round in 0..3000usize {
                let tasks = round % 23;
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.parallel(tasks, |i| {
                    counts[i].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1), "{threads} threads, {tasks} tasks");
                if round % 1000 == 999 {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        }
    }

    #[test]
    fn panics_are_passed_on_and_the_pool_lives() {
        let pool = Pool::new(Some(3));
        for _ in 0..20 {
            let done = AtomicUsize::new(0);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.parallel(16, |i| {
                    if i == 7 {
                        std::panic::resume_unwind(Box::new("task 7"));
                    }
                    done.fetch_add(1, Relaxed);
                });
            }));
            assert_eq!(result.err().and_then(|p| p.downcast_ref::<&str>().copied()), Some("task 7"));
            assert_eq!(done.load(Relaxed), 15);
        }
    }

    #[test]
    fn nested_and_concurrent_calls_run_inline() {
        let pool = Pool::new(Some(3));
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.parallel(5, |_| pool.parallel(4, |_| _ = count.fetch_add(1, Relaxed)));
                    }
                });
            }
        });
        assert_eq!(count.load(Relaxed), 3 * 200 * 20);
    }
}
