using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using Pml;

public static class ZooTests
{
    /// <summary>A store of the test's own, and nobody else's.</summary>
    private static ModelZooOptions Places(string name)
    {
        string path = Path.Combine(Models.Folder, name);
        if (Directory.Exists(path)) Directory.Delete(path, true);
        return new ModelZooOptions { Path = path, HuggingFacePath = "", OllamaPath = "", LMStudioPath = "" };
    }

    public static void ModelsAreAddedFoundAndRemoved()
    {
        ModelZooOptions places = Places("zoo");
        using (ModelZoo zoo = new ModelZoo(places))
        {
            Expect.Equal(0, zoo.List().Count);
            ModelMetadata added = zoo.Add(Models.Tiny, "little", "one", copy: true, pin: true);
            Expect.Equal("little", added.Name);
            Expect.Equal("one", added.Version);
            Expect.Equal("pml", added.Store);
            Expect.Equal(true, added.IsPinned);
            zoo.Add(Models.Rnn, "recurrent");
            IReadOnlyList<ModelMetadata> all = zoo.List(out IReadOnlyList<string> remarks);
            Expect.Sequence(new[] { "little", "recurrent" }, all.Select(model => model.Name).OrderBy(name => name));
            Expect.Equal(0, remarks.Count);
            ModelMetadata found = zoo.Find("little", "one");
            Expect.Equal(1, found.Files.Count);
            Expect.That(found.Files[0].Digest.StartsWith("sha256:"), found.Files[0].Digest);
            Expect.Equal(new FileInfo(Models.Tiny).Length, found.Files[0].ByteLength);
            Expect.Equal(found.ByteLength, found.Files[0].ByteLength);
            Expect.That(File.Exists(found.Files[0].Path), found.Files[0].Path);
            Expect.Equal("llama", found.Architecture);
            Expect.Equal("llama", found.Tokenizer);
            Expect.Equal(2048L, found.ContextLength);
            Expect.Equal(40L, found.TensorCount);
            Expect.That(found.ParameterCount > 1000000, found.ParameterCount.ToString());
            Expect.Equal(Dtype.F16, found.Dtype.Value);
            Expect.Equal(ModelFormat.Gguf, found.Format);
            Expect.Equal(null, found.License);
            Expect.Equal("little:one", found.ToString());
            zoo.Verify("little", "one");
            zoo.Pin("little", "one", false);
            Expect.Equal(false, zoo.Find("little:one").IsPinned);
            zoo.Remove("little", "one");
            Expect.Throws<PmlNotFoundException>(() => zoo.Find("little", "one"));
            Expect.Throws<PmlNotFoundException>(() => zoo.Remove("little", "one"));
            Expect.Throws<PmlNotFoundException>(() => zoo.Pin("little"));
            Expect.Throws<PmlNotFoundException>(() => zoo.Verify("little"));
            Expect.Throws<PmlInvalidArgumentException>(() => zoo.Add(Models.Tiny, "a b"));
            Expect.Throws<ArgumentNullException>(() => zoo.Add(null));
            Expect.Throws<ArgumentNullException>(() => zoo.Find(null));
            zoo.Dispose();
            Expect.Throws<ObjectDisposedException>(() => zoo.List());
            // What was found stays.
            Expect.Equal("little", found.Name);
        }
        Expect.Throws<ArgumentNullException>(() => new ModelZoo(null));
        Expect.Throws<ArgumentOutOfRangeException>(() => new ModelZoo(new ModelZooOptions { Limit = -1 }));
    }

    public static void ALimitRefusesWhatDoesNotFit()
    {
        ModelZooOptions places = Places("small");
        places.Limit = 1 << 20;
        using (ModelZoo zoo = new ModelZoo(places))
        {
            Expect.Throws<PmlUnsupportedException>(() => zoo.Add(Models.Tiny, copy: true));
            Expect.Equal("tiny", zoo.Add(Models.Tiny).Name);
        }
    }

    public static void NamesAreLoaded()
    {
        using (ModelZoo zoo = new ModelZoo(Places("named")))
        {
            zoo.Add(Models.Tiny, "little", "one");
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader(zoo))
            {
                ProgressiveLoadContext context = loader.LoadProgressive("little", "one", Device.Cpu);
                Expect.Equal("little", context.ModelMetadata.Name);
                Expect.Equal("one", context.ModelMetadata.Version);
            }
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader(zoo))
            {
                Expect.Throws<PmlNotFoundException>(() => loader.LoadProgressive("large"));
                loader.LoadAsync("little:one", device: Device.Cpu).Wait();
                Expect.That(loader.IsFullyLoaded(), "by name");
            }
            ModelMetadata found = zoo.Find("little:one");
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            {
                Expect.Equal(found, loader.LoadProgressive(found, Device.Cpu).ModelMetadata);
            }
            using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
            {
                Expect.Equal(found, loader.LoadAsync(found, Device.Cpu).Result.ModelMetadata);
                Expect.Throws<ArgumentNullException>(() => loader.LoadAsync((ModelMetadata)null));
                Expect.Throws<ArgumentNullException>(() => loader.LoadProgressive((ModelMetadata)null, Device.Cpu));
            }
            using (ProgressiveModelLoader loader = zoo.LoadProgressive("little", "one", Device.Cpu)) loader.LoadAll();
            using (ProgressiveModelLoader loader = zoo.LoadProgressive("little:one", LayerLoadingStrategy.Sequential)) loader.LoadAll();
            using (ProgressiveModelLoader loader = found.LoadProgressive(Device.Cpu)) loader.LoadAll();
            Expect.Throws<PmlNotFoundException>(() => zoo.LoadProgressive("large"));
            Expect.Throws<ArgumentNullException>(() => ((ModelZoo)null).LoadProgressive("little"));
            Expect.Throws<ArgumentNullException>(() => new ProgressiveModelLoader(null));
        }
    }

    public static void APathIsAModelToo()
    {
        ModelMetadata model = ModelMetadata.FromPath(Models.Tiny);
        Expect.Equal("path", model.Store);
        Expect.Equal(Models.Tiny, model.Path);
        Expect.Equal(null, model.Version);
        Expect.Equal(null, model.Files[0].Digest);
        Expect.Equal("llama", model.Architecture);
        Expect.Throws<PmlNotFoundException>(() => ModelMetadata.FromPath(Models.Tiny + ".none"));
        Expect.Throws<ArgumentNullException>(() => ModelMetadata.FromPath(null));
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            Expect.Equal(Models.Tiny, loader.LoadProgressive(Models.Tiny, null, Device.Cpu).ModelMetadata.Path);
        }
    }
}
