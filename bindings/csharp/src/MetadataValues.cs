using System;
using System.Collections;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using Pml.Native;

namespace Pml
{
    /// <summary>
    /// A model's metadata by key, read from its headers when it is asked for. Values have the C# type that the file gives them:
    /// byte to ulong, sbyte to long, float, double, bool, string, arrays of these, and object[] for arrays of arrays.
    /// </summary>
    public sealed class MetadataValues : IReadOnlyDictionary<string, object>
    {
        private readonly LoaderHandle handle;

        internal MetadataValues(LoaderHandle handle)
        {
            this.handle = handle;
        }

        /// <summary>How many keys there are.</summary>
        public int Count
        {
            get
            {
                using (Borrowed loader = handle.Borrow())
                {
                    return Sizes.ToInt(NativeMethods.pml_loader_metadata_count(loader.Pointer));
                }
            }
        }

        /// <summary>The keys, in the file's order.</summary>
        public IEnumerable<string> Keys
        {
            get
            {
                for (int index = 0; index < Count; index++) yield return KeyAt(index);
            }
        }

        /// <summary>The values, in the file's order.</summary>
        public IEnumerable<object> Values
        {
            get
            {
                foreach (string key in Keys) yield return this[key];
            }
        }

        /// <summary>The value of a key.</summary>
        /// <exception cref="KeyNotFoundException">There is none of this name.</exception>
        public object this[string key]
        {
            get
            {
                using (Borrowed loader = handle.Borrow())
                {
                    int status = Find(loader.Pointer, key, out pml_metadata_info_t info);
                    if (status == (int)PmlStatus.NotFound)
                    {
                        PmlException inner = PmlException.Of(status, null);
                        throw new KeyNotFoundException(inner.Message, inner);
                    }
                    PmlException.Check(status);
                    return Read(loader.Pointer, ref info);
                }
            }
        }

        /// <summary>Whether there is a key of this name.</summary>
        public bool ContainsKey(string key)
        {
            using (Borrowed loader = handle.Borrow())
            {
                return Find(loader.Pointer, key, out pml_metadata_info_t _) == 0;
            }
        }

        /// <summary>The value of a key; false where there is none of this name.</summary>
        public bool TryGetValue(string key, out object value)
        {
            value = ContainsKey(key) ? this[key] : null;
            return value != null;
        }

        /// <summary>The type of a key's value.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        public MetadataType TypeOf(string key)
        {
            using (Borrowed loader = handle.Borrow())
            {
                PmlException.Check(Find(loader.Pointer, key, out pml_metadata_info_t info));
                return (MetadataType)info.value_type;
            }
        }

        /// <summary>An integer of any width below 2^63.</summary>
        /// <exception cref="PmlNotFoundException">There is no such key.</exception>
        /// <exception cref="PmlWrongTypeException">It is no such integer.</exception>
        public unsafe long GetInt64(string key)
        {
            using (Borrowed loader = handle.Borrow())
            {
                PmlException.Check(Find(loader.Pointer, key, out pml_metadata_info_t info));
                long value;
                PmlException.Check(NativeMethods.pml_loader_metadata_i64(loader.Pointer, info.index, &value));
                return value;
            }
        }

        /// <summary>A floating-point number of either width.</summary>
        /// <exception cref="PmlNotFoundException">There is no such key.</exception>
        /// <exception cref="PmlWrongTypeException">It is none.</exception>
        public unsafe double GetDouble(string key)
        {
            using (Borrowed loader = handle.Borrow())
            {
                PmlException.Check(Find(loader.Pointer, key, out pml_metadata_info_t info));
                double value;
                PmlException.Check(NativeMethods.pml_loader_metadata_f64(loader.Pointer, info.index, &value));
                return value;
            }
        }

        /// <summary>A boolean.</summary>
        /// <exception cref="PmlNotFoundException">There is no such key.</exception>
        /// <exception cref="PmlWrongTypeException">It is none.</exception>
        public unsafe bool GetBoolean(string key)
        {
            using (Borrowed loader = handle.Borrow())
            {
                PmlException.Check(Find(loader.Pointer, key, out pml_metadata_info_t info));
                return Boolean(loader.Pointer, info.index);
            }
        }

        /// <summary>A text.</summary>
        /// <exception cref="PmlNotFoundException">There is no such key.</exception>
        /// <exception cref="PmlWrongTypeException">It is none.</exception>
        public unsafe string GetString(string key)
        {
            using (Borrowed loader = handle.Borrow())
            {
                PmlException.Check(Find(loader.Pointer, key, out pml_metadata_info_t info));
                return Text(loader.Pointer, info.index);
            }
        }

        /// <summary>Keys and values, in the file's order.</summary>
        public IEnumerator<KeyValuePair<string, object>> GetEnumerator()
        {
            foreach (string key in Keys) yield return new KeyValuePair<string, object>(key, this[key]);
        }

        IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

        private static unsafe int Find(IntPtr loader, string key, out pml_metadata_info_t info)
        {
            pml_metadata_info_t found = default(pml_metadata_info_t);
            found.struct_size = (UIntPtr)sizeof(pml_metadata_info_t);
            fixed (byte* text = Utf8.EncodeRequired(key, nameof(key)))
            {
                int status = NativeMethods.pml_loader_metadata_find(loader, text, &found);
                info = found;
                return status;
            }
        }

        private unsafe string KeyAt(int index)
        {
            using (Borrowed loader = handle.Borrow())
            {
                pml_metadata_info_t info = default(pml_metadata_info_t);
                info.struct_size = (UIntPtr)sizeof(pml_metadata_info_t);
                PmlException.Check(NativeMethods.pml_loader_metadata_at(loader.Pointer, (UIntPtr)(uint)index, &info));
                return Utf8.Decode(info.key, info.key_length);
            }
        }

        private static unsafe object Read(IntPtr loader, ref pml_metadata_info_t info)
        {
            switch ((MetadataType)info.value_type)
            {
                case MetadataType.U8: return (byte)Unsigned(loader, info.index);
                case MetadataType.U16: return (ushort)Unsigned(loader, info.index);
                case MetadataType.U32: return (uint)Unsigned(loader, info.index);
                case MetadataType.U64: return Unsigned(loader, info.index);
                case MetadataType.I8: return (sbyte)Signed(loader, info.index);
                case MetadataType.I16: return (short)Signed(loader, info.index);
                case MetadataType.I32: return (int)Signed(loader, info.index);
                case MetadataType.I64: return Signed(loader, info.index);
                case MetadataType.F32: return (float)Floating(loader, info.index);
                case MetadataType.F64: return Floating(loader, info.index);
                case MetadataType.Boolean: return Boolean(loader, info.index);
                case MetadataType.String: return Text(loader, info.index);
                default: return ReadArray(loader, ref info);
            }
        }

        private static object ReadArray(IntPtr loader, ref pml_metadata_info_t info)
        {
            int count = checked((int)info.count);
            switch ((MetadataType)info.element_type)
            {
                case MetadataType.U8: return Numbers(loader, ref info, new byte[count], 1);
                case MetadataType.I8: return Numbers(loader, ref info, new sbyte[count], 1);
                case MetadataType.U16: return Numbers(loader, ref info, new ushort[count], 2);
                case MetadataType.I16: return Numbers(loader, ref info, new short[count], 2);
                case MetadataType.U32: return Numbers(loader, ref info, new uint[count], 4);
                case MetadataType.I32: return Numbers(loader, ref info, new int[count], 4);
                case MetadataType.U64: return Numbers(loader, ref info, new ulong[count], 8);
                case MetadataType.I64: return Numbers(loader, ref info, new long[count], 8);
                case MetadataType.F32: return Numbers(loader, ref info, new float[count], 4);
                case MetadataType.F64: return Numbers(loader, ref info, new double[count], 8);
                case MetadataType.Boolean:
                    byte[] bytes = (byte[])Numbers(loader, ref info, new byte[count], 1);
                    return Array.ConvertAll(bytes, value => value != 0);
                case MetadataType.String: return Texts(loader, ref info, count);
                default: return Arrays(loader, ref info, count);
            }
        }

        private static unsafe Array Numbers(IntPtr loader, ref pml_metadata_info_t info, Array numbers, int size)
        {
            if (numbers.Length == 0) return numbers;
            GCHandle pinned = GCHandle.Alloc(numbers, GCHandleType.Pinned);
            try
            {
                PmlException.Check(NativeMethods.pml_loader_metadata_array_copy(
                    loader, info.index, 0, info.count, info.element_type, (void*)pinned.AddrOfPinnedObject(),
                    (UIntPtr)((ulong)numbers.Length * (ulong)size)));
            }
            finally
            {
                pinned.Free();
            }
            return numbers;
        }

        private static unsafe string[] Texts(IntPtr loader, ref pml_metadata_info_t info, int count)
        {
            string[] texts = new string[count];
            if (count == 0) return texts;
            IntPtr[] starts = new IntPtr[count];
            UIntPtr[] lengths = new UIntPtr[count];
            fixed (IntPtr* start = starts)
            fixed (UIntPtr* length = lengths)
            {
                PmlException.Check(NativeMethods.pml_loader_metadata_array_strings(
                    loader, info.index, 0, info.count, (byte**)start, length));
            }
            for (int element = 0; element < count; element++)
            {
                texts[element] = Utf8.Decode((byte*)starts[element], lengths[element]);
            }
            return texts;
        }

        private static unsafe object[] Arrays(IntPtr loader, ref pml_metadata_info_t info, int count)
        {
            object[] arrays = new object[count];
            for (int element = 0; element < count; element++)
            {
                pml_metadata_info_t inner = default(pml_metadata_info_t);
                inner.struct_size = (UIntPtr)sizeof(pml_metadata_info_t);
                PmlException.Check(
                    NativeMethods.pml_loader_metadata_element_array(loader, info.index, (ulong)element, &inner));
                arrays[element] = ReadArray(loader, ref inner);
            }
            return arrays;
        }

        private static unsafe ulong Unsigned(IntPtr loader, UIntPtr index)
        {
            ulong value;
            PmlException.Check(NativeMethods.pml_loader_metadata_u64(loader, index, &value));
            return value;
        }

        private static unsafe long Signed(IntPtr loader, UIntPtr index)
        {
            long value;
            PmlException.Check(NativeMethods.pml_loader_metadata_i64(loader, index, &value));
            return value;
        }

        private static unsafe double Floating(IntPtr loader, UIntPtr index)
        {
            double value;
            PmlException.Check(NativeMethods.pml_loader_metadata_f64(loader, index, &value));
            return value;
        }

        private static unsafe bool Boolean(IntPtr loader, UIntPtr index)
        {
            byte value;
            PmlException.Check(NativeMethods.pml_loader_metadata_bool(loader, index, &value));
            return value != 0;
        }

        private static unsafe string Text(IntPtr loader, UIntPtr index)
        {
            byte* text;
            UIntPtr length;
            PmlException.Check(NativeMethods.pml_loader_metadata_string(loader, index, &text, &length));
            return Utf8.Decode(text, length);
        }
    }
}
