using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Threading;

namespace Pml.Native
{
    /// <summary>
    /// What mono needs of threads that it did not make. It stops threads for a collection with signals, and the library's take
    /// none; and it waits for every thread that has run managed code when the process ends, but the library's workers stay.
    /// So the library's threads of events let its signals in and are ended with the process, and its workers, which may call
    /// destroy, run no managed code at all: their destroy is sem_post, and who opens or ends a loader looks what was posted.
    /// </summary>
    internal static unsafe class MonoThreads
    {
        private const int Unblock = 1;
        private const int CpuLimit = 24;
        private const int PowerFailure = 30;
        private const int FirstRealTime = 34;

        // A sigset_t of Linux has a bit for each signal, the first for signal 1; a sem_t has at most 32 bytes.
        private const int SetWords = 16;
        private const int SemaphoreBytes = 32;

        private static readonly List<IntPtr> Blocks = new List<IntPtr>();
        private static bool isReady;

        /// <summary>Whether this is mono.</summary>
        internal static readonly bool IsNeeded = Type.GetType("Mono.Runtime") != null;

        /// <summary>The function that the library is given for destroy.</summary>
        internal static IntPtr Post => DynamicLinker.Symbol(IntPtr.Zero, "sem_post");

        /// <summary>What the library is given for a handle: a semaphore and the handle.</summary>
        internal static IntPtr Wrap(IntPtr handle)
        {
            Sweep();
            IntPtr block = Marshal.AllocHGlobal(SemaphoreBytes + IntPtr.Size);
            sem_init(block, 0, 0);
            Marshal.WriteIntPtr(block, SemaphoreBytes, handle);
            lock (Blocks)
            {
                Blocks.Add(block);
                if (isReady) return block;
                isReady = true;
                LoadEvents.Prepare();
                AppDomain.CurrentDomain.ProcessExit += (sender, told) => EndAll();
                AppDomain.CurrentDomain.DomainUnload += (sender, told) => EndAll();
            }
            return block;
        }

        /// <summary>The handle of a block.</summary>
        internal static IntPtr Unwrap(IntPtr block) => Marshal.ReadIntPtr(block, SemaphoreBytes);

        /// <summary>Lets the runtime stop this thread. Allocates nothing, for that could wait for a collection.</summary>
        internal static void Admit()
        {
            if (!IsNeeded) return;
            ulong* signals = stackalloc ulong[SetWords];
            for (int word = 0; word < SetWords; word++) signals[word] = 0;
            signals[0] = 1UL << (CpuLimit - 1) | 1UL << (PowerFailure - 1) | ulong.MaxValue << (FirstRealTime - 1);
            pthread_sigmask(Unblock, signals, null);
        }

        /// <summary>Frees the handles that the library has done with; how many are left.</summary>
        internal static int Sweep()
        {
            lock (Blocks)
            {
                Blocks.RemoveAll(block =>
                {
                    if (sem_trywait(block) != 0) return false;
                    GCHandle.FromIntPtr(Unwrap(block)).Free();
                    sem_destroy(block);
                    Marshal.FreeHGlobal(block);
                    return true;
                });
                return Blocks.Count;
            }
        }

        /// <summary>Ends the loaders that nobody has disposed, and waits a moment for their threads.</summary>
        private static void EndAll()
        {
            List<LoadEvents> open = new List<LoadEvents>();
            lock (Blocks)
            {
                foreach (IntPtr block in Blocks) open.Add((LoadEvents)GCHandle.FromIntPtr(Unwrap(block)).Target);
            }
            foreach (LoadEvents events in open) events.EndLoader();
            for (int time = 0; time < 100 && Sweep() > 0; time++) Thread.Sleep(10);
        }

        [DllImport("libpthread.so.0")] private static extern int pthread_sigmask(int how, ulong* signals, ulong* before);
        [DllImport("libpthread.so.0")] private static extern int sem_init(IntPtr semaphore, int shared, uint value);
        [DllImport("libpthread.so.0")] private static extern int sem_trywait(IntPtr semaphore);
        [DllImport("libpthread.so.0")] private static extern int sem_destroy(IntPtr semaphore);
    }
}
