using System;
using System.Runtime.InteropServices;

namespace Pml.Native
{
    /// <summary>The functions of pml.h. Every signature is blittable: nothing is marshalled on the way.</summary>
    /// <remarks>
    /// Call <see cref="Library.Ensure"/> before the first of them, in another method: mono resolves a function when it compiles
    /// the method that calls it.
    /// </remarks>
    internal static unsafe class NativeMethods
    {
        private const string Pml = Library.ImportName;

        [DllImport(Pml)] internal static extern byte* pml_version_string();
        [DllImport(Pml)] internal static extern byte* pml_status_name(int status);
        [DllImport(Pml)] internal static extern byte* pml_last_error();
        [DllImport(Pml)] internal static extern byte pml_status_is_retryable(int status);

        [DllImport(Pml)] internal static extern UIntPtr pml_device_count();
        [DllImport(Pml)] internal static extern int pml_device_info(UIntPtr index, pml_device_info_t* info);

        [DllImport(Pml)] internal static extern int pml_rules_new(IntPtr* rules);
        [DllImport(Pml)] internal static extern void pml_rules_free(IntPtr rules);
        [DllImport(Pml)] internal static extern int pml_rules_layer(IntPtr rules, byte* pattern, byte* layer);
        [DllImport(Pml)] internal static extern int pml_rules_skip(IntPtr rules, byte* pattern);
        [DllImport(Pml)] internal static extern int pml_rules_dtype(IntPtr rules, byte* pattern, uint dtype);

        [DllImport(Pml)] internal static extern int pml_budget_new(ulong bytes, IntPtr* budget);
        [DllImport(Pml)] internal static extern void pml_budget_free(IntPtr budget);

        [DllImport(Pml)] internal static extern void pml_options_init(pml_options_t* options, UIntPtr size);
        [DllImport(Pml)] internal static extern void pml_loader_free(IntPtr loader);
        [DllImport(Pml)] internal static extern int pml_loader_stats(IntPtr loader, pml_stats_t* stats);
        [DllImport(Pml)] internal static extern int pml_loader_start(IntPtr loader);
        [DllImport(Pml)] internal static extern int pml_loader_wait(IntPtr loader, long milliseconds);
        [DllImport(Pml)] internal static extern int pml_loader_cancel(IntPtr loader);
        [DllImport(Pml)] internal static extern double pml_loader_progress(IntPtr loader);
        [DllImport(Pml)] internal static extern byte pml_loader_is_fully_loaded(IntPtr loader);
        [DllImport(Pml)] internal static extern uint pml_loader_stage(IntPtr loader);
        [DllImport(Pml)] internal static extern void pml_trim();

        [DllImport(Pml)] internal static extern UIntPtr pml_loader_tensor_count(IntPtr loader);
        [DllImport(Pml)] internal static extern int pml_loader_tensor(IntPtr loader, byte* name, IntPtr* tensor);
        [DllImport(Pml)] internal static extern int pml_loader_tensor_at(IntPtr loader, UIntPtr index, IntPtr* tensor);
        [DllImport(Pml)] internal static extern void pml_tensor_free(IntPtr tensor);
        [DllImport(Pml)] internal static extern int pml_tensor_get_info(IntPtr tensor, pml_tensor_info_t* info);
        [DllImport(Pml)] internal static extern byte pml_tensor_is_loaded(IntPtr tensor);
        [DllImport(Pml)] internal static extern int pml_tensor_prefetch(IntPtr tensor);
        [DllImport(Pml)]
        internal static extern int pml_tensor_acquire(IntPtr tensor, IntPtr stream, long milliseconds, pml_view_t* view);
        [DllImport(Pml)] internal static extern int pml_tensor_release(IntPtr tensor, IntPtr stream);
        [DllImport(Pml)] internal static extern int pml_tensor_view(IntPtr tensor, pml_view_t* view);
        [DllImport(Pml)]
        internal static extern int pml_tensor_read(IntPtr tensor, ulong offset, void* destination, UIntPtr size);

        [DllImport(Pml)] internal static extern UIntPtr pml_loader_layer_count(IntPtr loader);
        [DllImport(Pml)]
        internal static extern int pml_loader_layer_info(IntPtr loader, UIntPtr layer, pml_layer_info_t* info);
        [DllImport(Pml)]
        internal static extern int pml_loader_layer_tensor(IntPtr loader, UIntPtr layer, UIntPtr i, UIntPtr* tensor);
        [DllImport(Pml)] internal static extern int pml_loader_find_layer(IntPtr loader, byte* name, UIntPtr* layer);
        [DllImport(Pml)]
        internal static extern int pml_loader_set_layer_order(IntPtr loader, UIntPtr* layers, UIntPtr count);
        [DllImport(Pml)] internal static extern int pml_loader_prefetch(IntPtr loader, UIntPtr* layers, UIntPtr count);
        [DllImport(Pml)] internal static extern int pml_loader_prefetch_layer(IntPtr loader, byte* name);
        [DllImport(Pml)]
        internal static extern int pml_loader_acquire_layer(IntPtr loader, UIntPtr layer, IntPtr stream, long milliseconds);
        [DllImport(Pml)]
        internal static extern int pml_loader_release_layer(IntPtr loader, UIntPtr layer, IntPtr stream);
        [DllImport(Pml)] internal static extern int pml_loader_unload_layer(IntPtr loader, UIntPtr layer);

        [DllImport(Pml)] internal static extern UIntPtr pml_loader_metadata_count(IntPtr loader);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_at(IntPtr loader, UIntPtr index, pml_metadata_info_t* info);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_find(IntPtr loader, byte* key, pml_metadata_info_t* info);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_u64(IntPtr loader, UIntPtr index, ulong* value);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_i64(IntPtr loader, UIntPtr index, long* value);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_f64(IntPtr loader, UIntPtr index, double* value);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_bool(IntPtr loader, UIntPtr index, byte* value);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_string(IntPtr loader, UIntPtr index, byte** text, UIntPtr* length);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_element_array(
            IntPtr loader, UIntPtr index, ulong element, pml_metadata_info_t* info);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_array_copy(
            IntPtr loader, UIntPtr index, ulong first, ulong count, uint elementType, void* destination, UIntPtr size);
        [DllImport(Pml)]
        internal static extern int pml_loader_metadata_array_strings(
            IntPtr loader, UIntPtr index, ulong first, ulong count, byte** texts, UIntPtr* lengths);

        [DllImport(Pml)] internal static extern int pml_model_open_path(byte* path, IntPtr* model);
        [DllImport(Pml)] internal static extern void pml_model_free(IntPtr model);
        [DllImport(Pml)] internal static extern int pml_model_info(IntPtr model, pml_model_info_t* info);
        [DllImport(Pml)] internal static extern int pml_model_summary(IntPtr model, pml_model_info_t* info);
        [DllImport(Pml)] internal static extern int pml_model_file(IntPtr model, UIntPtr index, pml_model_file_t* file);
        [DllImport(Pml)]
        internal static extern int pml_loader_open_model(IntPtr model, pml_options_t* options, IntPtr* loader);

        [DllImport(Pml)] internal static extern int pml_zoo_open(pml_zoo_options_t* options, IntPtr* zoo);
        [DllImport(Pml)] internal static extern void pml_zoo_free(IntPtr zoo);
        [DllImport(Pml)] internal static extern int pml_zoo_list(IntPtr zoo, IntPtr* models);
        [DllImport(Pml)] internal static extern UIntPtr pml_models_count(IntPtr models);
        [DllImport(Pml)] internal static extern int pml_models_at(IntPtr models, UIntPtr index, IntPtr* model);
        [DllImport(Pml)] internal static extern UIntPtr pml_models_remark_count(IntPtr models);
        [DllImport(Pml)]
        internal static extern int pml_models_remark(IntPtr models, UIntPtr index, byte** text, UIntPtr* length);
        [DllImport(Pml)] internal static extern void pml_models_free(IntPtr models);
        [DllImport(Pml)] internal static extern int pml_zoo_find(IntPtr zoo, byte* name, byte* version, IntPtr* model);
        [DllImport(Pml)]
        internal static extern int pml_zoo_add(
            IntPtr zoo, byte* path, byte* name, byte* version, uint flags, IntPtr* model);
        [DllImport(Pml)] internal static extern int pml_zoo_remove(IntPtr zoo, byte* name, byte* version);
        [DllImport(Pml)] internal static extern int pml_zoo_pin(IntPtr zoo, byte* name, byte* version, uint isPinned);
        [DllImport(Pml)] internal static extern int pml_zoo_verify(IntPtr zoo, byte* name, byte* version);
    }
}
