using System;
using System.Text;

namespace Pml.Native
{
    /// <summary>Texts on their way to the library and back: UTF-8.</summary>
    internal static unsafe class Utf8
    {
        private static readonly UTF8Encoding Strict = new UTF8Encoding(false, true);

        /// <summary>The bytes of a text and a NUL; null for null.</summary>
        internal static byte[] Encode(string text, string parameter)
        {
            if (text == null) return null;
            if (text.IndexOf('\0') >= 0) throw new ArgumentException("The text has a NUL inside.", parameter);
            byte[] bytes = new byte[Strict.GetByteCount(text) + 1];
            Strict.GetBytes(text, 0, text.Length, bytes, 0);
            return bytes;
        }

        /// <summary>As <see cref="Encode"/>, for a text that has to be there.</summary>
        internal static byte[] EncodeRequired(string text, string parameter)
        {
            if (text == null) throw new ArgumentNullException(parameter);
            return Encode(text, parameter);
        }

        /// <summary>A text of so many bytes; null where there is none.</summary>
        internal static string Decode(byte* text, UIntPtr length)
        {
            return text == null ? null : Encoding.UTF8.GetString(text, checked((int)length.ToUInt64()));
        }

        /// <summary>A text that ends in NUL; null where there is none.</summary>
        internal static string Decode(byte* text)
        {
            if (text == null) return null;
            int length = 0;
            while (text[length] != 0) length++;
            return Encoding.UTF8.GetString(text, length);
        }
    }
}
