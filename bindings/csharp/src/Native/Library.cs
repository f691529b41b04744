using System;
using System.Collections.Generic;
using System.IO;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Pml.Native
{
    /// <summary>Finds the native library, checks its version, and tells the runtime where it is.</summary>
    internal static class Library
    {
        /// <summary>What <see cref="NativeMethods"/> import from.</summary>
        internal const string ImportName = "pml";

        /// <summary>The version that this assembly was written for: major &lt;&lt; 16 | minor &lt;&lt; 8 | patch.</summary>
        internal const uint Version = 0 << 16 | 1 << 8 | 0;

        /// <summary>The environment variable that names the library's file, in place of the search.</summary>
        internal const string Variable = "PML_LIBRARY";

        private const string FileName = "libpml.so";

        private static readonly string VersionedName = FileName + "." + (Version >> 16) + "." + (Version >> 8 & 255);
        private static readonly object Gate = new object();
        private static volatile string path;
        private static IntPtr module;

        /// <summary>The file that was loaded, as it was asked for; null before.</summary>
        internal static string LoadedPath => path;

        /// <summary>Loads the library where that was not done yet; throws <see cref="PmlLibraryException"/>.</summary>
        internal static void Ensure()
        {
            if (path != null) return;
            lock (Gate)
            {
                if (path != null) return;
                StringBuilder tried = new StringBuilder();
                foreach (string candidate in Candidates())
                {
                    string failure = TryLoad(candidate, out module);
                    if (failure == null)
                    {
                        TellRuntime(candidate);
                        path = candidate;
                        return;
                    }
                    tried.Append("\n  ").Append(candidate).Append(": ").Append(failure);
                }
                throw new PmlLibraryException(
                    $"No native library of pml {Version >> 16}.{Version >> 8 & 255} was found. Tried:{tried}\n" +
                    $"Put {FileName} beside Pml.dll or name its file in the environment variable {Variable}.");
            }
        }

        /// <summary>Where the library may be, the likeliest first.</summary>
        private static IEnumerable<string> Candidates()
        {
            string named = Environment.GetEnvironmentVariable(Variable);
            if (!string.IsNullOrEmpty(named))
            {
                // Whoever names a file wants that one or to be told.
                yield return named;
                yield break;
            }
            HashSet<string> seen = new HashSet<string>(StringComparer.Ordinal);
            foreach (string folder in Folders())
            {
                foreach (string name in new[] { FileName, VersionedName })
                {
                    string candidate = Path.Combine(folder, name);
                    if (seen.Add(candidate)) yield return candidate;
                }
            }
            // Without a folder the system looks where it looks for every library.
            yield return VersionedName;
            yield return FileName;
        }

        private static IEnumerable<string> Folders()
        {
            string ofPlatform = Path.Combine("runtimes", "linux-" + Architecture(), "native");
            string assembly = Path.GetDirectoryName(typeof(Library).Assembly.Location);
            foreach (string folder in new[] { assembly, AppDomain.CurrentDomain.BaseDirectory })
            {
                if (string.IsNullOrEmpty(folder)) continue;
                yield return folder;
                yield return Path.Combine(folder, ofPlatform);
                string package = PackageOf(folder);
                if (package != null) yield return Path.Combine(package, ofPlatform);
            }
            // Where .NET Core's host found the native files of packages.
            string host = AppDomain.CurrentDomain.GetData("NATIVE_DLL_SEARCH_DIRECTORIES") as string ?? "";
            foreach (string folder in host.Split(new[] { ':' }, StringSplitOptions.RemoveEmptyEntries))
            {
                yield return folder;
            }
        }

        /// <summary>The folder of an unpacked package whose lib/FRAMEWORK this is; null where it is none.</summary>
        private static string PackageOf(string folder)
        {
            DirectoryInfo lib = new DirectoryInfo(folder).Parent;
            return lib != null && lib.Name == "lib" ? lib.Parent?.FullName : null;
        }

        private static string Architecture()
        {
            return RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant();
        }

        /// <summary>Loads one file; null, or why that is not the library.</summary>
        private static string TryLoad(string candidate, out IntPtr handle)
        {
            handle = IntPtr.Zero;
            if (candidate.IndexOf('/') >= 0 && !File.Exists(candidate)) return "no such file";
            IntPtr opened;
            string failure;
            try
            {
                opened = DynamicLinker.Open(candidate, out failure);
            }
            catch (DllNotFoundException exception)
            {
                // A system with another C library.
                return "the system's linker was not found: " + exception.Message;
            }
            if (opened == IntPtr.Zero) return failure;
            IntPtr function = DynamicLinker.Symbol(opened, "pml_version_number");
            if (function == IntPtr.Zero)
            {
                DynamicLinker.Close(opened);
                return "is another library: it has no pml_version_number";
            }
            uint found = Marshal.GetDelegateForFunctionPointer<VersionNumber>(function)();
            if (found >> 8 != Version >> 8)
            {
                DynamicLinker.Close(opened);
                return $"is version {found >> 16}.{found >> 8 & 255}.{found & 255}; " +
                    $"this assembly needs {Version >> 16}.{Version >> 8 & 255}";
            }
            handle = opened;
            return null;
        }

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        private delegate uint VersionNumber();

        /// <summary>Has the runtime resolve <see cref="ImportName"/> to the file that was loaded.</summary>
        private static void TellRuntime(string file)
        {
            if (Type.GetType("Mono.Runtime") != null)
            {
                MapOnMono(file);
                return;
            }
#if NETCOREAPP3_0_OR_GREATER
            try
            {
                NativeLibrary.SetDllImportResolver(typeof(Library).Assembly, Resolve);
            }
            catch (InvalidOperationException)
            {
                // The host has set a resolver for this assembly, and there is one at most: then that finds the library.
            }
#else
            ResolveByReflection();
#endif
        }

        private static IntPtr Resolve(string name, Assembly assembly, DllImportSearchPath? searchPath)
        {
            return name == ImportName ? module : IntPtr.Zero;
        }

#if !NETCOREAPP3_0_OR_GREATER
        /// <summary>.NET Core 3 and later have NativeLibrary, which .NET Standard does not know.</summary>
        private static void ResolveByReflection()
        {
            const string InteropAssembly = ", System.Runtime.InteropServices";
            Type library = Type.GetType("System.Runtime.InteropServices.NativeLibrary" + InteropAssembly);
            Type resolver = Type.GetType("System.Runtime.InteropServices.DllImportResolver" + InteropAssembly);
            if (library == null || resolver == null) return;
            MethodInfo resolve = typeof(Library).GetMethod(nameof(Resolve), BindingFlags.NonPublic | BindingFlags.Static);
            try
            {
                library.GetMethod("SetDllImportResolver")
                    .Invoke(null, new object[] { typeof(Library).Assembly, Delegate.CreateDelegate(resolver, resolve) });
            }
            catch (TargetInvocationException exception) when (exception.InnerException is InvalidOperationException)
            {
                // The host has set a resolver for this assembly, and there is one at most: then that finds the library.
            }
        }
#endif

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static void MapOnMono(string file)
        {
            // Mono keeps copies of both names.
            IntPtr from = DynamicLinker.Allocate(ImportName);
            IntPtr to = DynamicLinker.Allocate(file);
            mono_dllmap_insert(IntPtr.Zero, from, IntPtr.Zero, to, IntPtr.Zero);
            Marshal.FreeHGlobal(from);
            Marshal.FreeHGlobal(to);
        }

        [DllImport("__Internal")]
        private static extern void mono_dllmap_insert(
            IntPtr assembly, IntPtr library, IntPtr function, IntPtr targetLibrary, IntPtr targetFunction);
    }
}
