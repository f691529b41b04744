using System;
using System.Runtime.CompilerServices;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// Choices by the names of parameters. Patterns are globs: * stands for any characters, dots among them, ? for one; of
    /// the rules of one kind that match, the last one wins. Copied when a model is opened with them.
    /// </summary>
    public sealed class LoadRules : IDisposable
    {
        /// <summary>An empty set of rules.</summary>
        /// <exception cref="PmlLibraryException">The native library was not found.</exception>
        public LoadRules()
        {
            Library.Ensure();
            Handle = New();
        }

        internal RulesHandle Handle { get; }

        /// <summary>What matches belongs to this layer, whatever its name says.</summary>
        /// <exception cref="PmlInvalidArgumentException">A text is empty.</exception>
        public unsafe LoadRules Layer(string pattern, string layer)
        {
            byte[] patternText = Utf8.EncodeRequired(pattern, nameof(pattern));
            byte[] layerText = Utf8.EncodeRequired(layer, nameof(layer));
            using (Borrowed rules = Handle.Borrow())
            fixed (byte* first = patternText, second = layerText)
            {
                PmlException.Check(NativeMethods.pml_rules_layer(rules.Pointer, first, second));
            }
            return this;
        }

        /// <summary>What matches is left out, as if the file had not got it.</summary>
        /// <exception cref="PmlInvalidArgumentException">The text is empty.</exception>
        public unsafe LoadRules Skip(string pattern)
        {
            using (Borrowed rules = Handle.Borrow())
            fixed (byte* text = Utf8.EncodeRequired(pattern, nameof(pattern)))
            {
                PmlException.Check(NativeMethods.pml_rules_skip(rules.Pointer, text));
            }
            return this;
        }

        /// <summary>What matches is delivered in this type.</summary>
        /// <exception cref="PmlInvalidArgumentException">The text is empty, or nothing can be delivered so.</exception>
        public unsafe LoadRules DeliverAs(string pattern, Dtype dtype)
        {
            using (Borrowed rules = Handle.Borrow())
            fixed (byte* text = Utf8.EncodeRequired(pattern, nameof(pattern)))
            {
                PmlException.Check(NativeMethods.pml_rules_dtype(rules.Pointer, text, (uint)dtype));
            }
            return this;
        }

        /// <summary>Frees the rules. Models that were opened with them keep their copy.</summary>
        public void Dispose()
        {
            Handle.Dispose();
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static unsafe RulesHandle New()
        {
            IntPtr rules;
            PmlException.Check(NativeMethods.pml_rules_new(&rules));
            return new RulesHandle(rules);
        }
    }
}
