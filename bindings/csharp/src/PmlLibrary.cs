using System.Runtime.CompilerServices;
using Pml.Native;

namespace Pml
{
    /// <summary>The native library behind these classes.</summary>
    public static class PmlLibrary
    {
        /// <summary>Its version, as "0.1.0".</summary>
        /// <exception cref="PmlLibraryException">It was not found, or is of another version.</exception>
        public static string Version
        {
            get
            {
                Library.Ensure();
                return ReadVersion();
            }
        }

        /// <summary>The file it was loaded from; without a folder where the system's search found it.</summary>
        /// <exception cref="PmlLibraryException">It was not found, or is of another version.</exception>
        public static string Path
        {
            get
            {
                Library.Ensure();
                return Library.LoadedPath;
            }
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static unsafe string ReadVersion()
        {
            return Utf8.Decode(NativeMethods.pml_version_string());
        }
    }
}
