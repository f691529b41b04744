using System;

namespace Pml
{
    /// <summary>Models opened from where they were found.</summary>
    public static class ModelZooExtensions
    {
        /// <summary>Opens the model of a name; dispose the loader.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        public static ProgressiveModelLoader LoadProgressive(
            this ModelZoo zoo, string name, string version = null, Device device = null, ProgressiveLoadOptions options = null)
        {
            if (zoo == null) throw new ArgumentNullException(nameof(zoo));
            return zoo.Find(name, version).LoadProgressive(device, options);
        }

        /// <summary>Opens the model of a name with this strategy; dispose the loader.</summary>
        /// <exception cref="PmlNotFoundException">There is none of this name.</exception>
        public static ProgressiveModelLoader LoadProgressive(this ModelZoo zoo, string name, LayerLoadingStrategy strategy)
        {
            return zoo.LoadProgressive(name, null, null, new ProgressiveLoadOptions { Strategy = strategy });
        }

        /// <summary>Opens a model that was found; dispose the loader.</summary>
        public static ProgressiveModelLoader LoadProgressive(
            this ModelMetadata model, Device device = null, ProgressiveLoadOptions options = null)
        {
            ProgressiveModelLoader loader = new ProgressiveModelLoader();
            try
            {
                loader.LoadProgressive(model, device, options);
                return loader;
            }
            catch
            {
                loader.Dispose();
                throw;
            }
        }
    }
}
