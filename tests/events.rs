//! What a caller is told: in which order, how often, by whom; and what it may do meanwhile.

mod doubles;
mod helpers;
mod wire;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use helpers::{Kept, PATIENCE, until};
use pml::loader::{
    Answer, Event, EventKind, LayerState, Listener, Loader, LogLevel, Options, Recovery, Stage, Strategy,
};
use pml::{Error, Status};
use wire::Wire;

const LAYER: usize = 64 << 10;

/// All events of a loader, as they are told.
#[derive(Default, Clone)]
struct Record(Arc<Mutex<Vec<Event>>>);

impl Record {
    fn listener(&self, mut answer: impl FnMut(&Event) -> Answer + Send + 'static) -> Listener {
        let record = self.clone();
        Box::new(move |event| {
            record.0.lock().unwrap().push(event.clone());
            answer(event)
        })
    }

    fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, kind: EventKind) -> usize {
        self.0.lock().unwrap().iter().filter(|event| event.kind == kind).count()
    }

    fn wait_for(&self, kind: EventKind) {
        until(|| self.count(kind) > 0);
    }
}

fn check_order(events: &[Event], layers: usize) {
    assert!(events.windows(2).all(|pair| pair[0].bytes_done <= pair[1].bytes_done), "progress falls");
    assert!(events.windows(2).all(|pair| pair[0].layers_done <= pair[1].layers_done), "progress falls");
    let loaded: Vec<usize> =
        events.iter().filter(|event| event.kind == EventKind::LayerLoaded).map(|event| event.layer.unwrap()).collect();
    let mut sorted = loaded.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..layers).collect::<Vec<_>>(), "each layer once: {loaded:?}");
    let full: Vec<usize> = (0..events.len()).filter(|at| events[*at].kind == EventKind::FullyLoaded).collect();
    assert_eq!(full, [events.len() - 1], "told once, and last");
    let last = events.last().unwrap();
    assert_eq!((last.bytes_done, last.layers_done, last.stage), (last.bytes_total, layers as u64, Stage::Done));
    assert!(events.iter().any(|event| event.bytes_per_second > 0.0));
}

#[test]
fn events_come_in_order_and_fully_loaded_once() {
    for strategy in [Strategy::Sequential, Strategy::Parallel] {
        let wire = Wire::layers(12, LAYER);
        wire.latency.store(300, Ordering::SeqCst);
        let record = Record::default();
        let loader =
            wire.open(Options { strategy, on_event: Some(record.listener(|_| Answer::Default)), ..Options::default() });
        assert_eq!(loader.stage(), Stage::Opening);
        loader.start().unwrap();
        loader.wait(None).unwrap();
        record.wait_for(EventKind::FullyLoaded);
        check_order(&record.all(), 12);
        assert_eq!(loader.stage(), Stage::Done);
        // Loaded again, a layer is told again; that all was loaded is not.
        loader.unload_layer(3).unwrap();
        drop(loader.acquire_layer(3).unwrap());
        until(|| record.count(EventKind::LayerLoaded) == 13);
        assert_eq!(record.count(EventKind::FullyLoaded), 1);
    }
}

#[test]
fn events_on_demand_come_too() {
    let record = Record::default();
    let loader = Wire::layers(5, LAYER)
        .open(Options { on_event: Some(record.listener(|_| Answer::Default)), ..Options::default() });
    for layer in [4, 0, 2, 1, 3] {
        drop(loader.acquire_layer(layer).unwrap());
    }
    record.wait_for(EventKind::FullyLoaded);
    check_order(&record.all(), 5);
}

#[test]
fn next_event_gives_the_same_sequence() {
    let essence = |events: &[Event]| {
        events.iter().map(|event| (event.kind, event.layer, event.layers_done, event.stage)).collect::<Vec<_>>()
    };
    // One layer at a time, each told before the next one is wanted, so that nothing is told as one.
    let record = Record::default();
    let wire = Wire::layers(5, LAYER);
    let loader = wire.open(Options { on_event: Some(record.listener(|_| Answer::Default)), ..Options::default() });
    let pulled = wire.open(Options::default());
    let mut events = Vec::new();
    for layer in 0..5 {
        drop(loader.acquire_layer(layer).unwrap());
        until(|| record.count(EventKind::LayerLoaded) > layer);
        drop(pulled.acquire_layer(layer).unwrap());
        while let Ok(event) = pulled.next_event(Some(Duration::ZERO)) {
            events.push(event);
        }
    }
    record.wait_for(EventKind::FullyLoaded);
    check_order(&events, 5);
    let (told, pulled_essence) = (essence(&record.all()), essence(&events));
    // Whether the stage and the first bytes are told together is a matter of a moment.
    let kinds = |list: &[(EventKind, Option<usize>, u64, Stage)]| {
        list.iter().filter(|event| event.0 != EventKind::Progress).map(|event| (event.0, event.1)).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&told), kinds(&pulled_essence));
    let error = loader.next_event(Some(Duration::ZERO)).unwrap_err();
    assert_eq!(error.status(), Status::InvalidState, "told or pulled, not both");
    let began = Instant::now();
    assert_eq!(pulled.next_event(Some(Duration::from_millis(20))).unwrap_err().status(), Status::TimedOut);
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[test]
fn next_event_waits_for_an_event() {
    let loader = Wire::layers(2, LAYER).open(Options::default());
    std::thread::scope(|scope| {
        let pulled = scope.spawn(|| loader.next_event(None).unwrap());
        std::thread::sleep(Duration::from_millis(10));
        drop(loader.acquire_layer(0).unwrap());
        assert_eq!(pulled.join().unwrap().kind, EventKind::Progress);
    });
}

#[test]
fn nobody_who_listens_piles_events_up() {
    let loader = Wire::layers(4, LAYER).open(Options::default());
    for _ in 0..200 {
        for layer in 0..4 {
            drop(loader.acquire_layer(layer).unwrap());
            loader.unload_layer(layer).unwrap();
        }
    }
    let mut count = 0;
    while loader.next_event(Some(Duration::ZERO)).is_ok() {
        count += 1;
    }
    assert!(count <= 6, "{count}");
}

#[test]
fn inside_a_callback_what_can_wait_is_refused_and_prefetch_works() {
    let slot: Arc<Mutex<Weak<Loader>>> = Arc::default();
    let refused: Arc<Mutex<Vec<Error>>> = Arc::default();
    let record = Record::default();
    let (loader_of, errors, done) = (slot.clone(), refused.clone(), Arc::new(AtomicBool::new(false)));
    let listener = record.listener(move |event| {
        let loader = loader_of.lock().unwrap().upgrade();
        if let Some(loader) =
            loader.filter(|_| event.kind == EventKind::LayerLoaded && !done.swap(true, Ordering::SeqCst))
        {
            let tensor = loader.tensor_at(1).unwrap();
            let mut bytes = vec![std::mem::MaybeUninit::uninit(); LAYER];
            let results = [
                loader.wait(Some(Duration::from_secs(5))),
                loader.acquire_layer(0).map(drop),
                tensor.acquire().map(drop),
                tensor.read(0, &mut [0; 4]),
                loader.load_into(&mut [(&tensor, &mut bytes)]),
                loader.unload_layer(0),
                loader.next_event(None).map(drop),
                loader.verify(0, |_| std::ops::ControlFlow::Continue(())).map(drop),
            ];
            errors.lock().unwrap().extend(results.into_iter().map(Result::unwrap_err));
            loader.prefetch(&[3]).unwrap();
            assert_eq!(loader.layer_info(0).unwrap().state, LayerState::Resident);
            assert!(loader.progress() > 0.0);
            loader.stats();
        }
        Answer::Default
    });
    let loader = Arc::new(Wire::layers(4, LAYER).open(Options { on_event: Some(listener), ..Options::default() }));
    *slot.lock().unwrap() = Arc::downgrade(&loader);
    drop(loader.acquire_layer(0).unwrap());
    until(|| loader.layer_info(3).unwrap().state == LayerState::Resident);
    let refused = refused.lock().unwrap();
    assert_eq!(refused.len(), 8);
    assert!(refused.iter().all(|error| error.status() == Status::WouldDeadlock), "{refused:?}");
}

#[test]
fn progress_may_cancel_and_loading_starts_again() {
    let wire = Wire::layers(30, LAYER);
    // However late progress is told, all is not loaded by then.
    wire.held_from.store(21, Ordering::SeqCst);
    let record = Record::default();
    let cancels = Arc::new(AtomicBool::new(true));
    let wanted = cancels.clone();
    let listener = record.listener(move |event| {
        let cancels =
            event.kind == EventKind::Progress && event.layers_done >= 3 && wanted.swap(false, Ordering::SeqCst);
        if cancels { Answer::Cancel } else { Answer::Default }
    });
    let loader = wire.open(Options { strategy: Strategy::Parallel, on_event: Some(listener), ..Options::default() });
    loader.start().unwrap();
    assert_eq!(loader.wait(None).unwrap_err().status(), Status::Cancelled);
    assert!(loader.progress() < 1.0);
    assert_eq!((loader.stage(), loader.wait(None).unwrap_err().status()), (Stage::Cancelled, Status::Cancelled));
    wire.held_from.store(0, Ordering::SeqCst);
    until(|| record.all().iter().any(|event| event.stage == Stage::Cancelled));
    // Single acquires work, and so does all of it.
    drop(loader.acquire_layer(29).unwrap());
    loader.start().unwrap();
    loader.wait(None).unwrap();
    record.wait_for(EventKind::FullyLoaded);
    check_order(&record.all(), 30);
}

#[test]
fn a_callback_that_sleeps_stalls_nobody() {
    let wire = Wire::layers(50, LAYER);
    let gate = Arc::new(AtomicBool::new(true));
    let sleeping = gate.clone();
    let record = Record::default();
    let listener = record.listener(move |_| {
        while sleeping.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Answer::Default
    });
    let loader = wire.open(Options { strategy: Strategy::Parallel, on_event: Some(listener), ..Options::default() });
    let other_record = Record::default();
    let other = wire.open(Options { on_event: Some(other_record.listener(|_| Answer::Default)), ..Options::default() });
    loader.start().unwrap();
    loader.wait(None).unwrap();
    drop(loader.acquire_layer(7).unwrap());
    until(|| !record.all().is_empty());
    assert_eq!(record.all().len(), 1, "the first one is still being told");
    drop(other.acquire_layer(1).unwrap());
    other_record.wait_for(EventKind::LayerLoaded);
    gate.store(false, Ordering::SeqCst);
    record.wait_for(EventKind::FullyLoaded);
    // Progress was told as it stood then, not once for each layer.
    check_order(&record.all(), 50);
    assert!(record.count(EventKind::Progress) <= 3, "{}", record.count(EventKind::Progress));
}

#[test]
fn what_callbacks_need_is_dropped_once_after_the_last_of_them() {
    let wire = Wire::layers(3, LAYER);
    for tensors in [false, true] {
        let kept = Arc::new(AtomicUsize::new(0));
        let (is_inside, may_leave) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        // What was kept when the callback ended, if it was let go; if it was waited for, none.
        let (outcome, told) = std::sync::mpsc::channel();
        let (count, inside, leave) = (kept.clone(), is_inside.clone(), may_leave.clone());
        let loader = wire.open(Options {
            keep: Some(Box::new(Kept::new(&kept))),
            on_event: Some(Box::new(move |_| {
                inside.store(true, Ordering::SeqCst);
                let end = Instant::now() + PATIENCE;
                while !leave.load(Ordering::SeqCst) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // Long enough for whoever would drop it too early.
                std::thread::sleep(Duration::from_millis(20));
                let was_let_go = leave.load(Ordering::SeqCst);
                outcome.send(was_let_go.then(|| count.load(Ordering::SeqCst))).unwrap();
                Answer::Default
            })),
            ..Options::default()
        });
        drop(loader.acquire_layer(0).unwrap());
        until(|| is_inside.load(Ordering::SeqCst));
        let tensor = tensors.then(|| loader.tensor_at(0).unwrap());
        drop(loader);
        may_leave.store(true, Ordering::SeqCst);
        assert_eq!(told.recv().unwrap(), Some(1), "free waits for no callback, and drops nothing that one needs");
        if tensors {
            std::thread::sleep(Duration::from_millis(40));
            assert_eq!(kept.load(Ordering::SeqCst), 1, "a handle is left");
        }
        drop(tensor);
        until(|| kept.load(Ordering::SeqCst) == 0);
        assert!(told.recv_timeout(PATIENCE).is_err(), "no callback began after free");
    }
    // Where opening fails, too.
    let kept = Arc::new(AtomicUsize::new(0));
    let options = Options {
        keep: Some(Box::new(Kept::new(&kept))),
        on_event: Some(Box::new(|_| Answer::Default)),
        max_loaded_layers: Some(0),
        ..Options::default()
    };
    assert!(Loader::open_source(wire.source(), options).is_err());
    until(|| kept.load(Ordering::SeqCst) == 0);
    let options = Options { keep: Some(Box::new(Kept::new(&kept))), ..Options::default() };
    assert!(Loader::open("no such file", options).is_err());
    until(|| kept.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_loader_may_be_freed_inside_its_callback() {
    let slot: Arc<Mutex<Option<Loader>>> = Arc::default();
    let (inside, kept) = (slot.clone(), Arc::new(AtomicUsize::new(0)));
    let options = Options {
        strategy: Strategy::Parallel,
        keep: Some(Box::new(Kept::new(&kept))),
        on_event: Some(Box::new(move |event| {
            if event.kind == EventKind::LayerLoaded {
                drop(inside.lock().unwrap().take());
            }
            Answer::Default
        })),
        ..Options::default()
    };
    let loader = Wire::layers(20, LAYER).open(options);
    *slot.lock().unwrap() = Some(loader);
    if let Some(loader) = &*slot.lock().unwrap() {
        loader.start().unwrap();
    }
    until(|| kept.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_callback_that_panics_is_contained() {
    let record = Record::default();
    let listener = record.listener(|event| {
        assert!(event.kind != EventKind::LayerLoaded, "a callback's own panic");
        Answer::Default
    });
    let loader = Wire::layers(3, LAYER).open(Options { on_event: Some(listener), ..Options::default() });
    for layer in 0..3 {
        drop(loader.acquire_layer(layer).unwrap());
    }
    record.wait_for(EventKind::FullyLoaded);
}

#[test]
fn the_log_has_its_levels() {
    for (level, has_info, has_warning) in [
        (LogLevel::Debug, true, true),
        (LogLevel::Info, true, true),
        (LogLevel::Warning, false, true),
        (LogLevel::Error, false, false),
    ] {
        let wire = Wire::layers(3, LAYER);
        wire.failing.store(1, Ordering::SeqCst);
        let lines: Arc<Mutex<Vec<(LogLevel, String)>>> = Arc::default();
        let log = lines.clone();
        let loader = wire.open(Options {
            recovery: Recovery::Retry,
            retry_backoff: Duration::from_millis(1),
            log: Some(Box::new(move |level, text| log.lock().unwrap().push((level, text.to_owned())))),
            log_level: level,
            ..Options::default()
        });
        drop(loader.acquire_layer(0).unwrap());
        loader.cancel();
        drop(loader.acquire_layer(1).unwrap());
        let has = |wanted| lines.lock().unwrap().iter().any(|(level, _)| *level == wanted);
        until(|| (!has_info || has(LogLevel::Info)) && (!has_warning || has(LogLevel::Warning)));
        until(|| level != LogLevel::Debug || has(LogLevel::Debug));
        assert_eq!((has(LogLevel::Info), has(LogLevel::Warning)), (has_info, has_warning), "{level:?}");
        assert!(lines.lock().unwrap().iter().all(|(_, text)| text.starts_with("wire: ") && !text.contains('\n')));
        // Events may be pulled beside a log.
        assert!(loader.next_event(Some(Duration::ZERO)).is_ok());
    }
}

#[test]
fn the_same_on_a_cuda_double() {
    doubles::passes_on(doubles::Kind::Cuda, &[]);
}

#[test]
fn the_same_on_a_hip_double() {
    doubles::passes_on(doubles::Kind::Hip, &[]);
}
