using System;
using System.IO;
using System.Linq;
using System.Reflection;
using Pml;

public static class ExceptionTests
{
    public static void EachStatusHasAType()
    {
        Expect.That(PmlLibrary.Version != null, "the library");
        MethodInfo of = typeof(PmlException).GetMethods(BindingFlags.NonPublic | BindingFlags.Static)
            .Single(method => method.Name == "Of" && method.GetParameters().Length == 3);
        foreach (PmlStatus status in Enum.GetValues(typeof(PmlStatus)))
        {
            if (status == PmlStatus.Ok) continue;
            PmlException exception = (PmlException)of.Invoke(null, new object[] { status, "words", null });
            Expect.Equal("Pml" + status + "Exception", exception.GetType().Name);
            Expect.Equal(status, exception.Status);
            Expect.Equal("words", exception.Message);
            Expect.Equal(IsRetryable(status), exception.IsRetryable, status.ToString());
        }
        PmlException unknown = (PmlException)of.Invoke(null, new object[] { (PmlStatus)(-99), "words", null });
        Expect.Equal(typeof(PmlException), unknown.GetType());
        Expect.Equal(-99, (int)unknown.Status);
    }

    /// <summary>What the library itself says of a status.</summary>
    private static bool IsRetryable(PmlStatus status)
    {
        Type methods = typeof(PmlException).Assembly.GetType("Pml.Native.NativeMethods");
        MethodInfo asked = methods.GetMethod("pml_status_is_retryable", BindingFlags.NonPublic | BindingFlags.Static);
        return (byte)asked.Invoke(null, new object[] { (int)status }) != 0;
    }

    public static void TheLibrarysWordsAreTold()
    {
        string none = Path.Combine(Models.Folder, "näme ☃.gguf");
        Expect.That(Opened<PmlNotFoundException>(none).Message.Contains(none), "the message lacks the path");
    }

    public static void FilesThatAreNoModels()
    {
        string garbage = Path.Combine(Models.Folder, "garbage.gguf");
        File.WriteAllBytes(garbage, new byte[] { (byte)'G', (byte)'G', (byte)'U', (byte)'F', 3, 0, 0, 0 });
        Opened<PmlTruncatedException>(garbage);
        byte[] header = Models.Bytes(Models.Tiny, 0, 4096);
        // The count of tensors.
        header[15] = 0xff;
        File.WriteAllBytes(garbage, header);
        Opened<PmlException>(garbage);
        // What torch.save writes begins like this.
        File.WriteAllBytes(garbage, new byte[] { (byte)'P', (byte)'K', 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 });
        Opened<PmlUnsupportedException>(garbage);
        byte[] twice = File.ReadAllBytes(Models.Tiny);
        // A key's name becomes another's.
        int first = Find(twice, "llama.attention.key_length");
        System.Text.Encoding.ASCII.GetBytes("llama.attention.head_count").CopyTo(twice, first);
        File.WriteAllBytes(garbage, twice);
        Opened<PmlMalformedException>(garbage);
    }

    public static void ADeviceThatIsNotThere()
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            PmlException thrown = Expect.Throws<PmlException>(() =>
            {
                loader.LoadProgressive(Models.Tiny, null, Device.Hip(99));
                loader.AcquireLayer("blk.0");
            });
            Expect.That(
                thrown is PmlUnsupportedException || thrown is PmlDeviceException || thrown is PmlNotFoundException,
                thrown.ToString());
        }
    }

    private static int Find(byte[] bytes, string text)
    {
        byte[] wanted = System.Text.Encoding.ASCII.GetBytes(text);
        for (int at = 0; at < bytes.Length - wanted.Length; at++)
        {
            if (wanted.Where((value, index) => bytes[at + index] != value).Any()) continue;
            return at;
        }
        throw new Exception(text + " is not in the file");
    }

    private static T Opened<T>(string path) where T : Exception
    {
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            return Expect.Throws<T>(() => loader.LoadProgressive(path, null, Device.Cpu));
        }
    }
}
