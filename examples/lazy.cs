// Visits every layer of a model in order, as a forward pass would, in less memory than the model has.
using System;
using System.Linq;
using Pml;

internal static class Lazy
{
    private static int Main(string[] arguments)
    {
        if (arguments.Length != 1)
        {
            Console.Error.WriteLine("usage: lazy MODEL");
            return 2;
        }
        try
        {
            Visit(arguments[0]);
            return 0;
        }
        catch (PmlException exception)
        {
            Console.Error.WriteLine(exception.Message);
            return 1;
        }
    }

    private static void Visit(string nameOrPath)
    {
        // Headers only: what the layers take says which budget to choose.
        long bytes = ModelMetadata.FromPath(nameOrPath).ByteLength;
        ProgressiveLoadOptions options = new ProgressiveLoadOptions
        {
            Strategy = LayerLoadingStrategy.Prefetch,
            PrefetchCount = 1,
            UnloadStrategy = UnloadStrategy.LRU,
            MemoryBudget = bytes * 3 / 4,
        };
        using (ProgressiveModelLoader loader = new ProgressiveModelLoader())
        {
            // On a thread of the library's own, while the pass goes on.
            loader.OnError += (sender, told) => Console.Error.WriteLine(told.Error.Message);
            loader.OnFullyLoaded += (sender, told) => Console.WriteLine("every layer was there once");
            ProgressiveLoadContext context = loader.LoadProgressive(nameOrPath, null, Device.Cpu, options);
            Console.WriteLine(
                "a {0} model of {1} parameters, opened without reading one of them",
                context.ModelMetadata.Architecture, loader.ParameterCount);

            foreach (string layer in context.LayerLoadOrder.Layers)
            {
                // The layer is there, and the next one is on its way while this one computes.
                using (LayerLease lease = loader.AcquireLayer(layer))
                {
                    long read = lease.Parameters.Sum(parameter => Compute(parameter.View()));
                    Console.WriteLine("{0,-16} {1,4} parameters {2,12} bytes", layer, lease.Parameters.Count, read);
                }
            }

            Console.WriteLine("at most {0} of {1} bytes were in memory", loader.GetStatistics().PeakChargedBytes, bytes);

            // A parameter by itself is loaded when it is first accessed, and kept.
            LazyParameter numbers = loader.Parameters.FirstOrDefault(parameter => parameter.Dtype == Dtype.F32);
            if (numbers == null) return; // a model may have none of this type
            using (ParameterLease lease = numbers.Acquire())
            {
                float[] first = new float[Math.Min(4, lease.Data.Length / sizeof(float))];
                lease.Data.CopyTo(0, first, 0, first.Length);
                Console.WriteLine("{0} begins with {1}", numbers, string.Join(", ", first));
            }
        }
    }

    private static long Compute(TensorData data)
    {
        return data.Length;
    }
}
