//! Our table and numbers are AMD's: hip-sys has them from AMD's header. Nothing is called, so nothing has to be linked.

use std::ffi::c_void;

use hip_sys::hiprt;

use super::*;
use crate::device::driver::{CAPTURE_IMPLICIT, NOT_READY, OUT_OF_MEMORY};

/// A type of ours passes for one of theirs.
trait Same<Theirs> {}

impl Same<u32> for u32 {}
impl Same<i32> for i32 {}
impl Same<usize> for usize {}
impl Same<c_char> for c_char {}
impl Same<c_void> for c_void {}
impl Same<hiprt::ihipStream_t> for c_void {}
impl Same<hiprt::ihipEvent_t> for c_void {}
impl<Ours: Same<Theirs>, Theirs> Same<*mut Theirs> for *mut Ours {}
impl<Ours: Same<Theirs>, Theirs> Same<*const Theirs> for *const Ours {}

macro_rules! enumerations {
    ($($name:ident)*) => {
        $(
            impl Same<hiprt::$name> for u32 {}
            const _: () = assert!(size_of::<hiprt::$name>() == size_of::<u32>());
        )*
    };
}
enumerations!(hipError_t hipMemcpyKind hipDeviceAttribute_t hipStreamCaptureMode hipStreamCaptureStatus);

macro_rules! functions_of {
    ($(($($ours:ident $theirs:ident)*))*) => {
        $(
            impl<R: Same<S>, S, $($ours: Same<$theirs>, $theirs),*> Same<unsafe extern "C" fn($($theirs),*) -> S>
                for unsafe extern "C" fn($($ours),*) -> R
            {
            }
        )*
    };
}
functions_of!(() (A V) (A V B W) (A V B W C X) (A V B W C X D Y) (A V B W C X D Y E Z));

fn same<Ours: Same<Theirs>, Theirs>(_: Ours, _: Theirs) {}

fn same_if_there<Ours: Same<Theirs>, Theirs>(_: Option<Ours>, _: Theirs) {}

/// Takes the table apart whole, so that no function can be forgotten. Generic and never called: its types are checked,
/// and no code is made that would need AMD's library.
macro_rules! compare {
    (
        $($name:ident($($any:tt),*))*;
        $($optional:ident($($optional_any:tt),*))*
    ) => {
        #[allow(clippy::extra_unused_type_parameters, reason = "without one, code would be made")]
        #[allow(dead_code, non_snake_case, reason = "it is only checked; they are called what the runtime calls them")]
        fn compare<Never>(ours: Functions) {
            let Functions { $($name,)* $($optional,)* } = ours;
            $(same($name, hiprt::$name as unsafe extern "C" fn($($any),*) -> _);)*
            $(same_if_there($optional, hiprt::$optional as unsafe extern "C" fn($($optional_any),*) -> _);)*
        }
    };
}

compare! {
    hipInit(_)
    hipGetLastError()
    hipGetDeviceCount(_)
    hipDeviceGetName(_, _, _)
    hipDeviceTotalMem(_, _)
    hipDeviceGetAttribute(_, _, _)
    hipGetDevice(_)
    hipSetDevice(_)
    hipDeviceSynchronize()
    hipMemGetInfo(_, _)
    hipMalloc(_, _)
    hipFree(_)
    hipHostRegister(_, _, _)
    hipHostUnregister(_)
    hipMemcpyAsync(_, _, _, _, _)
    hipStreamCreateWithFlags(_, _)
    hipStreamDestroy(_)
    hipStreamSynchronize(_)
    hipStreamWaitEvent(_, _, _)
    hipEventCreateWithFlags(_, _)
    hipEventDestroy(_)
    hipEventRecord(_, _)
    hipEventQuery(_)
    hipEventSynchronize(_);
    hipPeekAtLastError()
    hipGetErrorName(_)
    hipGetErrorString(_)
    hipDeviceGetPCIBusId(_, _, _)
    hipThreadExchangeStreamCaptureMode(_)
    hipStreamIsCapturing(_, _)
}

#[test]
fn numbers_are_amds() {
    use hiprt::hipError_t as error;
    for (ours, theirs) in [
        (OUT_OF_MEMORY, error::hipErrorOutOfMemory as u32),
        (NO_DEVICE, error::hipErrorNoDevice as u32),
        (NOT_READY, error::hipErrorNotReady as u32),
        (CAPTURE_IMPLICIT, error::hipErrorStreamCaptureImplicit as u32),
        (CAPTURE_MODE_RELAXED, hiprt::hipStreamCaptureMode::hipStreamCaptureModeRelaxed as u32),
        (DEVICE_ATTRIBUTE_INTEGRATED, hiprt::hipDeviceAttribute_t::hipDeviceAttributeIntegrated as u32),
        (
            DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            hiprt::hipDeviceAttribute_t::hipDeviceAttributeComputeCapabilityMajor as u32,
        ),
        (HOST_TO_DEVICE, hiprt::hipMemcpyKind::hipMemcpyHostToDevice as u32),
        (DEVICE_TO_HOST, hiprt::hipMemcpyKind::hipMemcpyDeviceToHost as u32),
        (STREAM_NON_BLOCKING, hiprt::hipStreamNonBlocking),
        (EVENT_BLOCKING_SYNC, hiprt::hipEventBlockingSync),
        (EVENT_DISABLE_TIMING, hiprt::hipEventDisableTiming),
        (HOST_REGISTER_PORTABLE, hiprt::hipHostRegisterPortable),
    ] {
        assert_eq!(ours, theirs);
    }
}
