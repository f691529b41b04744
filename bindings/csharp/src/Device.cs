using System;
using System.Collections.Generic;
using System.Globalization;
using System.Runtime.CompilerServices;
using Pml.Native;

namespace Pml
{
    /// <summary>Where a model's layers end up: the host's memory or a GPU's. Two with the same name are equal.</summary>
    public sealed class Device : IEquatable<Device>
    {
        private Device(DeviceKind? kind, int ordinal, string name)
        {
            Kind = kind;
            Ordinal = ordinal;
            Name = name;
        }

        /// <summary>The host's own memory.</summary>
        public static Device Cpu { get; } = new Device(DeviceKind.Host, 0, "cpu");

        /// <summary>The first GPU that has room when the first layer is wanted, else the host.</summary>
        public static Device Auto { get; } = new Device(null, 0, "auto");

        /// <summary>A GPU behind NVIDIA's driver; whether it is there, opening a model and using it says.</summary>
        public static Device Cuda(int ordinal = 0) => Numbered(DeviceKind.Cuda, "cuda", ordinal);

        /// <summary>A GPU behind AMD's HIP runtime; whether it is there, opening a model and using it says.</summary>
        public static Device Hip(int ordinal = 0) => Numbered(DeviceKind.Hip, "hip", ordinal);

        /// <summary>What the device is; null for <see cref="Auto"/>, which is chosen later.</summary>
        public DeviceKind? Kind { get; }

        /// <summary>Its number among those of its kind.</summary>
        public int Ordinal { get; }

        /// <summary>Its name: "cpu", "auto", "cuda:0", "hip:1".</summary>
        public string Name { get; }

        /// <summary>What its maker calls it; empty for the host, and where the device was not enumerated.</summary>
        public string Model { get; private set; } = "";

        /// <summary>Whether it shares the host's memory; known of enumerated devices.</summary>
        public bool IsUnified { get; private set; }

        /// <summary>Bytes of memory that it has; null where that is not known.</summary>
        public ulong? TotalBytes { get; private set; }

        /// <summary>Bytes of memory that it could give when it was enumerated; null where that is not known without waking it.</summary>
        public ulong? FreeBytes { get; private set; }

        /// <summary>The devices of this machine, the host first. Wakes none.</summary>
        /// <exception cref="PmlLibraryException">The native library was not found.</exception>
        public static IReadOnlyList<Device> Enumerate()
        {
            Library.Ensure();
            return EnumerateNative();
        }

        /// <summary>The device of this name: "cpu", "auto", "cuda", "cuda:1", "hip:0". It need not be on this machine.</summary>
        /// <exception cref="ArgumentNullException">There is no name.</exception>
        /// <exception cref="FormatException">No device is named like this.</exception>
        public static Device Parse(string name)
        {
            if (name == null) throw new ArgumentNullException(nameof(name));
            if (TryParse(name, out Device device)) return device;
            throw new FormatException($"\"{name}\" names no device: \"cpu\", \"auto\", \"cuda:0\", \"hip:0\" do.");
        }

        /// <summary>As <see cref="Parse"/>; false where no device is named like this.</summary>
        public static bool TryParse(string name, out Device device)
        {
            device = null;
            if (name == null) return false;
            int colon = name.IndexOf(':');
            string kind = colon < 0 ? name : name.Substring(0, colon);
            int ordinal = 0;
            if (colon >= 0 && !int.TryParse(name.Substring(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ordinal))
            {
                return false;
            }
            switch (kind)
            {
                case "cpu": device = colon < 0 ? Cpu : null; break;
                case "auto": device = colon < 0 ? Auto : null; break;
                case "cuda": device = Cuda(ordinal); break;
                case "hip": device = Hip(ordinal); break;
            }
            return device != null;
        }

        /// <summary>Its name.</summary>
        public override string ToString() => Name;

        /// <summary>Whether both have the same name.</summary>
        public bool Equals(Device other) => other != null && Name == other.Name;

        /// <summary>Whether both have the same name.</summary>
        public override bool Equals(object other) => Equals(other as Device);

        /// <summary>A number that is the same for the same name.</summary>
        public override int GetHashCode() => Name.GetHashCode();

        /// <summary>The device that the library tells by numbers.</summary>
        internal static Device Of(uint kind, uint ordinal)
        {
            switch ((DeviceKind)kind)
            {
                case DeviceKind.Host: return Cpu;
                case DeviceKind.Cuda: return Cuda((int)ordinal);
                case DeviceKind.Hip: return Hip((int)ordinal);
                default: return Auto;
            }
        }

        private static Device Numbered(DeviceKind kind, string name, int ordinal)
        {
            if (ordinal < 0) throw new ArgumentOutOfRangeException(nameof(ordinal));
            return new Device(kind, ordinal, name + ":" + ordinal.ToString(CultureInfo.InvariantCulture));
        }

        [MethodImpl(MethodImplOptions.NoInlining)]
        private static unsafe IReadOnlyList<Device> EnumerateNative()
        {
            List<Device> devices = new List<Device>();
            ulong count = NativeMethods.pml_device_count().ToUInt64();
            for (ulong index = 0; index < count; index++)
            {
                pml_device_info_t info = default(pml_device_info_t);
                info.struct_size = (UIntPtr)sizeof(pml_device_info_t);
                PmlException.Check(NativeMethods.pml_device_info((UIntPtr)index, &info));
                devices.Add(new Device((DeviceKind)info.kind, (int)info.ordinal, Utf8.Decode(info.name, info.name_length))
                {
                    Model = Utf8.Decode(info.model, info.model_length),
                    IsUnified = info.unified != 0,
                    TotalBytes = Known(info.total_bytes),
                    FreeBytes = Known(info.free_bytes),
                });
            }
            return devices;
        }

        private static ulong? Known(ulong bytes) => bytes == ulong.MaxValue ? (ulong?)null : bytes;
    }
}
