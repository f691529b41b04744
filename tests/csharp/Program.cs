using System;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Threading;

/// <summary>Runs every public static method of the classes whose names end in Tests; or tells what a test of the build asks.</summary>
internal static class Program
{
    /// <summary>How long a test may take before it counts as one that hangs.</summary>
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(2);

    /// <summary>How long it may take before it is named, so that whoever ends the program meanwhile sees where it was.</summary>
    private static readonly TimeSpan Long = TimeSpan.FromSeconds(10);

    private static int Main(string[] arguments)
    {
        switch (arguments[0])
        {
            case "run":
                Models.Folder = arguments[1];
                return RunAll(arguments.Length > 2 ? arguments[2] : "");
            case "describe":
                Describe.Print();
                return 0;
            case "library":
                return PrintLibrary();
            case "device":
                Models.Folder = arguments[1];
                return Run("DeviceRun", typeof(DeviceRun).GetMethods().Where(method => method.IsStatic), "");
            default:
                Console.Error.WriteLine("unknown: " + arguments[0]);
                return 2;
        }
    }

    private static int RunAll(string wanted)
    {
        return Run(
            "tests",
            typeof(Program).Assembly.GetTypes().Where(type => type.Name.EndsWith("Tests"))
                .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Static)),
            wanted);
    }

    private static int Run(string what, System.Collections.Generic.IEnumerable<MethodInfo> tests, string wanted)
    {
        int passed = 0;
        int failed = 0;
        foreach (MethodInfo test in tests)
        {
            string name = test.DeclaringType.Name + "." + test.Name;
            if (name.IndexOf(wanted, StringComparison.Ordinal) < 0) continue;
            Exception thrown = null;
            Thread thread = new Thread(() =>
            {
                try
                {
                    test.Invoke(null, null);
                }
                catch (TargetInvocationException exception)
                {
                    thrown = exception.InnerException;
                }
            });
            thread.IsBackground = true;
            thread.Start();
            bool hasEnded = thread.Join(Long);
            if (!hasEnded) Console.WriteLine("still running: " + name);
            if (!hasEnded && !thread.Join(Limit)) thrown = new TimeoutException("it has not ended");
            if (thrown == null) passed++;
            else failed++;
            if (thrown != null) Console.WriteLine("FAILED " + name + ": " + thrown);
        }
        Console.WriteLine("{0}: {1} passed, {2} failed", what, passed, failed);
        // Whatever hangs is not waited for.
        Environment.Exit(failed == 0 && passed > 0 ? 0 : 1);
        return 0;
    }

    private static int PrintLibrary()
    {
        try
        {
            Console.WriteLine(Pml.PmlLibrary.Version);
            Console.WriteLine(Pml.PmlLibrary.Path);
            return 0;
        }
        catch (Pml.PmlLibraryException exception)
        {
            Console.WriteLine(exception.Message);
            return 1;
        }
    }
}

/// <summary>What a test says has to be so.</summary>
internal static class Expect
{
    internal static void That(bool holds, string what)
    {
        if (!holds) throw new Exception(what);
    }

    internal static void Equal<T>(T expected, T found, string what = "value")
    {
        if (!Equals(expected, found)) throw new Exception($"{what}: expected {expected}, found {found}");
    }

    internal static void Sequence<T>(System.Collections.Generic.IEnumerable<T> expected, System.Collections.Generic.IEnumerable<T> found)
    {
        Equal(string.Join(", ", expected), string.Join(", ", found), "sequence");
    }

    internal static T Throws<T>(Action action) where T : Exception
    {
        try
        {
            action();
        }
        catch (T exception)
        {
            return exception;
        }
        catch (AggregateException exception) when (exception.InnerException is T)
        {
            return (T)exception.InnerException;
        }
        throw new Exception($"expected {typeof(T).Name}");
    }
}

/// <summary>The files that the tests open.</summary>
internal static class Models
{
    internal static string Folder;

    /// <summary>Six layers, F16 and F32: token_embd, blk.0 to blk.3, output.</summary>
    internal static string Tiny => Path.Combine(Folder, "tiny.gguf");

    internal static string Rnn => Path.Combine(Folder, "rnn.gguf");

    internal static string Cnn => Path.Combine(Folder, "cnn.gguf");

    internal static readonly string[] TinyLayers = { "token_embd", "blk.0", "blk.1", "blk.2", "blk.3", "output" };

    /// <summary>A copy of the tiny model under another name, for tests that change it.</summary>
    internal static string CopyOfTiny(string name)
    {
        string path = Path.Combine(Folder, name);
        File.Copy(Tiny, path, true);
        return path;
    }

    /// <summary>Cuts a file after its headers and first layers.</summary>
    internal static void Cut(string path)
    {
        using (FileStream file = File.OpenWrite(path)) file.SetLength(file.Length / 2);
    }

    internal static byte[] Bytes(string path, long offset, int count)
    {
        byte[] bytes = new byte[count];
        using (FileStream file = File.OpenRead(path))
        {
            file.Position = offset;
            int read = 0;
            while (read < count) read += file.Read(bytes, read, count - read);
        }
        return bytes;
    }
}
