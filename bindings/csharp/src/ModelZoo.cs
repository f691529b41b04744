using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// The models that are on this machine, by the names that people know: in our own store, the Hugging Face Hub's cache,
    /// Ollama's and LM Studio's. Each call looks at the stores as they are. May be used from several threads at once.
    /// </summary>
    public sealed class ModelZoo : IDisposable
    {
        private const uint CopyFlag = 1;
        private const uint PinFlag = 2;

        private readonly ZooHandle handle;

        /// <summary>The stores where their own programs keep them.</summary>
        /// <exception cref="PmlLibraryException">The native library was not found.</exception>
        public ModelZoo() : this(new ModelZooOptions())
        {
        }

        /// <summary>The stores of these places.</summary>
        /// <exception cref="PmlLibraryException">The native library was not found.</exception>
        public ModelZoo(ModelZooOptions options)
        {
            if (options == null) throw new ArgumentNullException(nameof(options));
            if (options.Limit < 0) throw new ArgumentOutOfRangeException(nameof(options));
            Library.Ensure();
            handle = Open(options);
        }

        /// <summary>Every model that the stores have, by folders and manifests alone: no header is read.</summary>
        public IReadOnlyList<ModelMetadata> List() => List(out IReadOnlyList<string> _);

        /// <summary>As <see cref="List()"/>, with a line for each thing that is not whole or could not be looked at.</summary>
        public unsafe IReadOnlyList<ModelMetadata> List(out IReadOnlyList<string> remarks)
        {
            using (ModelsHandle list = ListNative())
            using (Borrowed models = list.Borrow())
            {
                ModelMetadata[] found = new ModelMetadata[Sizes.ToInt(NativeMethods.pml_models_count(models.Pointer))];
                for (int index = 0; index < found.Length; index++)
                {
                    IntPtr model;
                    PmlException.Check(NativeMethods.pml_models_at(models.Pointer, (UIntPtr)(uint)index, &model));
                    found[index] = new ModelMetadata(model);
                }
                string[] lines = new string[Sizes.ToInt(NativeMethods.pml_models_remark_count(models.Pointer))];
                for (int index = 0; index < lines.Length; index++)
                {
                    byte* text;
                    UIntPtr length;
                    PmlException.Check(
                        NativeMethods.pml_models_remark(models.Pointer, (UIntPtr)(uint)index, &text, &length));
                    lines[index] = Utf8.Decode(text, length);
                }
                remarks = lines;
                return found;
            }
        }

        /// <summary>
        /// The model of a name, as "llama3:8b", "org/name", "org/name@revision:Q4_K_M" or "ollama://llama3:8b". What exists as a
        /// path is a path first, unless a version is given. Reads no header, except of a path.
        /// </summary>
        /// <param name="name">The name.</param>
        /// <param name="version">A tag, a revision or a quantisation; null where the name says enough.</param>
        /// <exception cref="PmlNotFoundException">There is none; the message says where was looked and what is near.</exception>
        /// <exception cref="PmlInvalidArgumentException">Several have that name, which the message tells, or it is none.</exception>
        public unsafe ModelMetadata Find(string name, string version = null)
        {
            using (Borrowed zoo = handle.Borrow())
            fixed (byte* nameText = Utf8.EncodeRequired(name, nameof(name)))
            fixed (byte* versionText = Utf8.Encode(version, nameof(version)))
            {
                IntPtr model;
                PmlException.Check(NativeMethods.pml_zoo_find(zoo.Pointer, nameText, versionText, &model));
                return new ModelMetadata(model);
            }
        }

        /// <summary>Adds a model to our own store, in the place of one of the same name and version. Reads all of its bytes.</summary>
        /// <param name="path">A file, any shard of a set, its index, or a folder.</param>
        /// <param name="name">Its name; null for that of the file without its ending, or of the folder.</param>
        /// <param name="version">Its version; null for "latest".</param>
        /// <param name="copy">Whether its files are copied in; else they stay where they are.</param>
        /// <param name="pin">Whether it is kept whatever the store's limit.</param>
        /// <exception cref="PmlInvalidArgumentException">The name or version has other characters than names may have.</exception>
        /// <exception cref="PmlUnsupportedException">It has more bytes than the limit leaves.</exception>
        public unsafe ModelMetadata Add(
            string path, string name = null, string version = null, bool copy = false, bool pin = false)
        {
            uint flags = (copy ? CopyFlag : 0) | (pin ? PinFlag : 0);
            using (Borrowed zoo = handle.Borrow())
            fixed (byte* pathText = Utf8.EncodeRequired(path, nameof(path)))
            fixed (byte* nameText = Utf8.Encode(name, nameof(name)))
            fixed (byte* versionText = Utf8.Encode(version, nameof(version)))
            {
                IntPtr model;
                PmlException.Check(NativeMethods.pml_zoo_add(zoo.Pointer, pathText, nameText, versionText, flags, &model));
                return new ModelMetadata(model);
            }
        }

        /// <summary>Removes a model from our own store, with what was copied in; what a loader reads stays until its end.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        /// <exception cref="PmlUnsupportedException">It is another program's, which is never changed.</exception>
        public unsafe void Remove(string name, string version = null)
        {
            using (Borrowed zoo = handle.Borrow())
            fixed (byte* nameText = Utf8.EncodeRequired(name, nameof(name)))
            fixed (byte* versionText = Utf8.Encode(version, nameof(version)))
            {
                PmlException.Check(NativeMethods.pml_zoo_remove(zoo.Pointer, nameText, versionText));
            }
        }

        /// <summary>Has our own store keep a model whatever its limit, or lets it go again.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        /// <exception cref="PmlUnsupportedException">It is another program's, which is never changed.</exception>
        public unsafe void Pin(string name, string version = null, bool isPinned = true)
        {
            using (Borrowed zoo = handle.Borrow())
            fixed (byte* nameText = Utf8.EncodeRequired(name, nameof(name)))
            fixed (byte* versionText = Utf8.Encode(version, nameof(version)))
            {
                PmlException.Check(NativeMethods.pml_zoo_pin(zoo.Pointer, nameText, versionText, isPinned ? 1u : 0u));
            }
        }

        /// <summary>Reads every file of a model whose digest its store knows, and compares.</summary>
        /// <exception cref="PmlMalformedException">The bytes are others than those that the digest stands for.</exception>
        /// <exception cref="PmlUnsupportedException">The store knows no digest.</exception>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        public unsafe void Verify(string name, string version = null)
        {
            using (Borrowed zoo = handle.Borrow())
            fixed (byte* nameText = Utf8.EncodeRequired(name, nameof(name)))
            fixed (byte* versionText = Utf8.Encode(version, nameof(version)))
            {
                PmlException.Check(NativeMethods.pml_zoo_verify(zoo.Pointer, nameText, versionText));
            }
        }

        /// <summary>Frees it. Models that came from it stay.</summary>
        public void Dispose()
        {
            handle.Dispose();
        }

        private unsafe ModelsHandle ListNative()
        {
            using (Borrowed zoo = handle.Borrow())
            {
                IntPtr models;
                PmlException.Check(NativeMethods.pml_zoo_list(zoo.Pointer, &models));
                return new ModelsHandle(models);
            }
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static unsafe ZooHandle Open(ModelZooOptions options)
        {
            fixed (byte* path = Utf8.Encode(options.Path, nameof(options)))
            fixed (byte* huggingFace = Utf8.Encode(options.HuggingFacePath, nameof(options)))
            fixed (byte* ollama = Utf8.Encode(options.OllamaPath, nameof(options)))
            fixed (byte* lmStudio = Utf8.Encode(options.LMStudioPath, nameof(options)))
            {
                pml_zoo_options_t native = default(pml_zoo_options_t);
                native.struct_size = (UIntPtr)sizeof(pml_zoo_options_t);
                native.path = path;
                native.huggingface_path = huggingFace;
                native.ollama_path = ollama;
                native.lm_studio_path = lmStudio;
                native.limit = (ulong)options.Limit;
                IntPtr zoo;
                PmlException.Check(NativeMethods.pml_zoo_open(&native, &zoo));
                return new ZooHandle(zoo);
            }
        }
    }
}
