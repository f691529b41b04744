using System;
using System.Runtime.InteropServices;

namespace Pml.Native
{
    /// <summary>The system's dynamic linker, which says why it cannot load a file.</summary>
    internal static unsafe class DynamicLinker
    {
        private const string Linker = "libdl.so.2";
        private const int Now = 2;

        /// <summary>Loads a file, or finds it by the system's search; zero and the linker's words where it cannot.</summary>
        internal static IntPtr Open(string file, out string failure)
        {
            IntPtr name = Allocate(file);
            IntPtr handle = dlopen(name, Now);
            failure = handle != IntPtr.Zero ? null : Utf8.Decode(dlerror()) ?? "the linker does not say why";
            Marshal.FreeHGlobal(name);
            return handle;
        }

        /// <summary>The address of a function; zero where there is none of this name.</summary>
        internal static IntPtr Symbol(IntPtr handle, string symbol)
        {
            IntPtr name = Allocate(symbol);
            IntPtr address = dlsym(handle, name);
            Marshal.FreeHGlobal(name);
            return address;
        }

        internal static void Close(IntPtr handle)
        {
            dlclose(handle);
        }

        /// <summary>A text and a NUL, to be freed with Marshal.FreeHGlobal.</summary>
        internal static IntPtr Allocate(string text)
        {
            byte[] bytes = Utf8.Encode(text, nameof(text));
            IntPtr memory = Marshal.AllocHGlobal(bytes.Length);
            Marshal.Copy(bytes, 0, memory, bytes.Length);
            return memory;
        }

        [DllImport(Linker)] private static extern IntPtr dlopen(IntPtr file, int flags);
        [DllImport(Linker)] private static extern IntPtr dlsym(IntPtr handle, IntPtr symbol);
        [DllImport(Linker)] private static extern int dlclose(IntPtr handle);
        [DllImport(Linker)] private static extern byte* dlerror();
    }
}
