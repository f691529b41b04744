using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// One model as one value: a name, its version, and the files behind them. Immutable: it stays what it was when its store
    /// changes. What only headers say is read from them the first time that it is asked for, and may throw what opening the
    /// model may.
    /// </summary>
    public sealed class ModelMetadata
    {
        private readonly object gate = new object();
        private Headers headers;

        internal unsafe ModelMetadata(IntPtr model)
        {
            Handle = new ModelHandle(model);
            pml_model_info_t info = default(pml_model_info_t);
            info.struct_size = (UIntPtr)sizeof(pml_model_info_t);
            PmlException.Check(NativeMethods.pml_model_summary(model, &info));
            Name = Utf8.Decode(info.name, info.name_length);
            Version = Known(info.version, info.version_length);
            Store = Utf8.Decode(info.store, info.store_length);
            Path = Utf8.Decode(info.path, info.path_length);
            ByteLength = checked((long)info.bytes);
            IsPinned = info.is_pinned != 0;
            ModelFile[] files = new ModelFile[Sizes.ToInt(info.file_count)];
            for (int index = 0; index < files.Length; index++) files[index] = FileAt(model, index);
            Files = Array.AsReadOnly(files);
        }

        /// <summary>The name that people know it by, as "llama3" or "org/name"; of a path the path.</summary>
        public string Name { get; }

        /// <summary>The word for its version: a tag, a revision, a quantisation; null where its store has none.</summary>
        public string Version { get; }

        /// <summary>Its store: "pml", "huggingface", "ollama", "lm-studio", or "path" for none.</summary>
        public string Store { get; }

        /// <summary>What is opened: a file, or a folder.</summary>
        public string Path { get; }

        /// <summary>Bytes of all its files.</summary>
        public long ByteLength { get; }

        /// <summary>Whether our own store keeps it whatever its limit.</summary>
        public bool IsPinned { get; }

        /// <summary>Its files.</summary>
        public IReadOnlyList<ModelFile> Files { get; }

        /// <summary>The model's word for what it is, as "llama"; null where it does not say.</summary>
        public string Architecture => Read().Architecture;

        /// <summary>The licence that it names; null where it names none.</summary>
        public string License => Read().License;

        /// <summary>The kind of its tokenizer; null where it does not say.</summary>
        public string Tokenizer => Read().Tokenizer;

        /// <summary>Elements of all tensors.</summary>
        public long ParameterCount => Read().Parameters;

        /// <summary>How many tokens it was made for at once; 0 where it does not say.</summary>
        public long ContextLength => Read().ContextLength;

        /// <summary>How many tensors it has.</summary>
        public long TensorCount => Read().TensorCount;

        /// <summary>The type that most bytes are stored in; null where that is not known.</summary>
        public Dtype? Dtype => Read().Dtype;

        /// <summary>Its format.</summary>
        public ModelFormat Format => Read().Format;

        internal ModelHandle Handle { get; }

        /// <summary>The model in a file or a folder, without any store.</summary>
        /// <exception cref="PmlException">What kept its headers from being read.</exception>
        public static ModelMetadata FromPath(string path)
        {
            if (path == null) throw new ArgumentNullException(nameof(path));
            Library.Ensure();
            return Open(path);
        }

        /// <summary>Its name and version.</summary>
        public override string ToString() => Version == null ? Name : Name + ":" + Version;

        private static unsafe string Known(byte* text, UIntPtr length)
        {
            string known = Utf8.Decode(text, length);
            return string.IsNullOrEmpty(known) ? null : known;
        }

        private static unsafe ModelFile FileAt(IntPtr model, int index)
        {
            pml_model_file_t file = default(pml_model_file_t);
            file.struct_size = (UIntPtr)sizeof(pml_model_file_t);
            PmlException.Check(NativeMethods.pml_model_file(model, (UIntPtr)(uint)index, &file));
            return new ModelFile(
                Utf8.Decode(file.path, file.path_length), Known(file.digest, file.digest_length), file.bytes);
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static unsafe ModelMetadata Open(string path)
        {
            IntPtr model;
            fixed (byte* text = Utf8.EncodeRequired(path, nameof(path)))
            {
                PmlException.Check(NativeMethods.pml_model_open_path(text, &model));
            }
            return new ModelMetadata(model);
        }

        private unsafe Headers Read()
        {
            lock (gate)
            {
                if (headers != null) return headers;
                using (Borrowed model = Handle.Borrow())
                {
                    pml_model_info_t info = default(pml_model_info_t);
                    info.struct_size = (UIntPtr)sizeof(pml_model_info_t);
                    PmlException.Check(NativeMethods.pml_model_info(model.Pointer, &info));
                    headers = new Headers
                    {
                        Architecture = Known(info.architecture, info.architecture_length),
                        License = Known(info.license, info.license_length),
                        Tokenizer = Known(info.tokenizer, info.tokenizer_length),
                        Parameters = checked((long)info.parameters),
                        ContextLength = checked((long)info.context_length),
                        TensorCount = checked((long)info.tensor_count),
                        Dtype = info.dtype == uint.MaxValue ? (Dtype?)null : (Dtype)info.dtype,
                        Format = (ModelFormat)info.format,
                    };
                }
                return headers;
            }
        }

        private sealed class Headers
        {
            internal string Architecture;
            internal string License;
            internal string Tokenizer;
            internal long Parameters;
            internal long ContextLength;
            internal long TensorCount;
            internal Dtype? Dtype;
            internal ModelFormat Format;
        }
    }
}
