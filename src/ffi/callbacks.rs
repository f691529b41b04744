//! The caller's functions as the library's listeners.

use std::ffi::{c_char, c_void};

use super::event::message_of;
use super::{
    PML_ON_ERROR_FAIL, PML_ON_ERROR_FALLBACK, PML_ON_ERROR_RETRY, PML_ON_ERROR_SKIP, pml_event_callback_t, pml_event_t,
    pml_options_t,
};
use crate::loader::{Answer, Event, EventKind, Listener, Log};

/// A callback for a line of the log: its level, a PML_LOG_ value, and its text, which does not end in NUL.
pub type pml_log_callback_t =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: u32, message: *const c_char, message_length: usize)>;

/// The functions for events, with their argument.
struct Callbacks {
    on_layer_loaded: pml_event_callback_t,
    on_progress: pml_event_callback_t,
    on_fully_loaded: pml_event_callback_t,
    on_error: pml_event_callback_t,
    user_data: *mut c_void,
}

// SAFETY: the header tells callers that callbacks run on a thread of the library's.
unsafe impl Send for Callbacks {}

impl Callbacks {
    fn tell(&self, event: &Event) -> Answer {
        let function = match event.kind {
            EventKind::Error => self.on_error,
            EventKind::LayerLoaded => self.on_layer_loaded,
            EventKind::Progress => self.on_progress,
            EventKind::FullyLoaded => self.on_fully_loaded,
        };
        let Some(function) = function else { return Answer::Default };
        let message = message_of(event);
        let told = pml_event_t::of(event, &message);
        // SAFETY: the caller gave this function to be called with this argument and an event.
        let answer = unsafe { function(self.user_data, &raw const told) };
        match (event.kind, answer) {
            (EventKind::Progress, answer) if answer != 0 => Answer::Cancel,
            (EventKind::Error, PML_ON_ERROR_RETRY) => Answer::Retry,
            (EventKind::Error, PML_ON_ERROR_FALLBACK) => Answer::Fallback,
            (EventKind::Error, PML_ON_ERROR_SKIP) => Answer::Skip,
            (EventKind::Error, PML_ON_ERROR_FAIL) => Answer::Fail,
            _ => Answer::Default,
        }
    }
}

/// What tells the caller's functions of events, where there are any.
pub(super) fn listener(given: &pml_options_t) -> Option<Listener> {
    let callbacks = Callbacks {
        on_layer_loaded: given.on_layer_loaded,
        on_progress: given.on_progress,
        on_fully_loaded: given.on_fully_loaded,
        on_error: given.on_error,
        user_data: given.user_data,
    };
    let all = [callbacks.on_layer_loaded, callbacks.on_progress, callbacks.on_fully_loaded, callbacks.on_error];
    let has_any = all.iter().any(Option::is_some);
    has_any.then(|| Box::new(move |event: &Event| callbacks.tell(event)) as Listener)
}

/// What writes the caller's log, where there is one.
pub(super) fn log(given: &pml_options_t) -> Option<Log> {
    struct Target(*mut c_void);
    // SAFETY: the header tells callers that callbacks run on a thread of the library's.
    unsafe impl Send for Target {}

    let function = given.log?;
    let target = Target(given.user_data);
    Some(Box::new(move |level, message| {
        let target = &target;
        // SAFETY: the caller gave this function to be called with this argument and a line of text.
        unsafe { function(target.0, level as u32, message.as_ptr().cast(), message.len()) };
    }))
}
