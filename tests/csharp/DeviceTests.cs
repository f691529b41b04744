using System;
using System.Collections.Generic;
using System.Linq;
using Pml;

public static class DeviceTests
{
    public static void TheHostIsEnumeratedFirst()
    {
        IReadOnlyList<Device> devices = Device.Enumerate();
        Expect.Equal(Device.Cpu, devices[0]);
        Expect.Equal(DeviceKind.Host, devices[0].Kind.Value);
        Expect.That(devices[0].TotalBytes > 1 << 20, "total");
        Expect.That(devices[0].FreeBytes == null || devices[0].FreeBytes <= devices[0].TotalBytes, "free");
        Expect.Equal("", devices[0].Model);
        Expect.Equal(devices.Count, devices.Distinct().Count());
    }

    public static void NamesAreParsed()
    {
        Expect.That(ReferenceEquals(Device.Cpu, Device.Parse("cpu")), "cpu");
        Expect.Equal(null, Device.Parse("auto").Kind);
        Expect.Equal("cuda:0", Device.Parse("cuda").Name);
        Device second = Device.Parse("hip:12");
        Expect.Equal(DeviceKind.Hip, second.Kind.Value);
        Expect.Equal(12, second.Ordinal);
        Expect.Equal("hip:12", second.ToString());
        Expect.Equal(Device.Cuda(1), Device.Parse("cuda:1"));
        Expect.Equal(Device.Cuda(1).GetHashCode(), Device.Parse("cuda:1").GetHashCode());
        Expect.That(!Device.Cuda(1).Equals(Device.Cuda(2)) && !Device.Cpu.Equals(null) && !Device.Cpu.Equals("cpu"), "equality");
        foreach (string wrong in new[] { "", "CPU", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:x", "vulkan:0", "cuda:99999999999" })
        {
            Expect.Throws<FormatException>(() => Device.Parse(wrong));
            Expect.Equal(false, Device.TryParse(wrong, out Device none));
            Expect.Equal(null, none);
        }
        Expect.Equal(false, Device.TryParse(null, out Device _));
        Expect.Throws<ArgumentNullException>(() => Device.Parse(null));
        Expect.Throws<ArgumentOutOfRangeException>(() => Device.Cuda(-1));
    }

    public static void StreamsHaveTheHeadersNumbers()
    {
        Expect.Equal(new IntPtr(-1), DeviceStream.Host.Handle);
        Expect.Equal(new IntPtr(-1), default(DeviceStream).Handle);
        Expect.Equal(new IntPtr(1), DeviceStream.Legacy.Handle);
        Expect.Equal(new IntPtr(2), DeviceStream.PerThread.Handle);
        Expect.Equal(new IntPtr(77), new DeviceStream(new IntPtr(77)).Handle);
        Expect.Equal(new DeviceStream(new IntPtr(77)), new DeviceStream(new IntPtr(77)));
        Expect.Equal(DeviceStream.Legacy.GetHashCode(), new DeviceStream(new IntPtr(1)).GetHashCode());
        Expect.That(!DeviceStream.Host.Equals(null) && !DeviceStream.Host.Equals(DeviceStream.Legacy), "equality");
    }

    public static void TheLibrarySaysWhichItIs()
    {
        Expect.That(PmlLibrary.Version.StartsWith("0.1."), PmlLibrary.Version);
        Expect.That(PmlLibrary.Path.Contains("libpml.so"), PmlLibrary.Path);
    }
}

/// <summary>What a run on a double of a GPU's driver does.</summary>
public static class DeviceRun
{
    public static void ParametersGoToTheDevice()
    {
        Device device = Device.Enumerate().First(candidate => candidate.Kind != DeviceKind.Host);
        Expect.That(device.Model.Length > 0, "no model");
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            loader.LoadProgressive(Models.Tiny, null, device);
            LazyParameter parameter = loader.GetParameter("blk.0.attn_q.weight");
            using (ParameterLease lease = parameter.Acquire(DeviceStream.Legacy, TimeSpan.FromMinutes(1)))
            {
                Expect.Equal(device, lease.Data.Device);
                Expect.That(lease.Data.Pointer != IntPtr.Zero, "no address");
                Expect.Throws<InvalidOperationException>(() => lease.Data.CopyTo(0, new byte[1], 0, 1));
                byte[] bytes = new byte[100];
                parameter.Read(0, bytes, 0, 100);
                Expect.That(bytes.SequenceEqual(Models.Bytes(Models.Tiny, parameter.FileOffset, 100)), "bytes");
            }
            Expect.That(parameter.IsKept, "not kept");
            using (loader.AcquireLayer("blk.1", DeviceStream.PerThread, TimeSpan.FromMinutes(1)))
            {
                Expect.Equal(device, loader.GetParameter("blk.1.attn_q.weight").View().Device);
            }
            Expect.Equal(device, loader.GetStatistics().Device);
            Expect.That(loader.GetStatistics().CopiedBytes > 0, "nothing was copied");
            loader.LoadAll();
        }
        MemoryManager.Trim();
    }
}
