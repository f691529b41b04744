using System;
using System.Runtime.InteropServices;

namespace Pml.Native
{
    // The structs of pml.h, under its own names, so that a test can compare every offset and size with the header.

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_device_info_t
    {
        public UIntPtr struct_size;
        public uint kind;
        public uint ordinal;
        public byte* name;
        public UIntPtr name_length;
        public uint unified;
        public uint reserved;
        public ulong total_bytes;
        public ulong free_bytes;
        public byte* model;
        public UIntPtr model_length;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_event_t
    {
        public UIntPtr struct_size;
        public uint kind;
        public uint stage;
        public UIntPtr layer;
        public UIntPtr tensor;
        public ulong bytes_done;
        public ulong bytes_total;
        public ulong layers_done;
        public ulong layers_total;
        public double bytes_per_second;
        public int status;
        public uint reserved;
        public byte* message;
        public UIntPtr message_length;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_options_t
    {
        public UIntPtr struct_size;
        public byte* device;
        public uint strategy;
        public uint max_concurrent_loads;
        public uint prefetch_count;
        public uint unload;
        public long max_loaded_layers;
        public ulong memory_budget;
        public IntPtr budget;
        public uint io;
        public uint workers;
        public UIntPtr alignment;
        public UIntPtr tail_padding;
        public uint layer_order;
        public uint recovery;
        public IntPtr rules;
        public IntPtr allocator;
        public uint retry_count;
        public uint retry_backoff_ms;
        public ulong pressure_threshold;
        public IntPtr on_layer_loaded;
        public IntPtr on_progress;
        public IntPtr on_fully_loaded;
        public IntPtr on_error;
        public IntPtr log;
        public uint log_level;
        public uint reserved;
        public IntPtr user_data;
        public IntPtr destroy;
        public byte* cache_path;
        public uint dtype;
        public uint keep_original;
        public uint format;
        public uint cache_digest;
        public ulong cache_limit;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_tensor_info_t
    {
        public UIntPtr struct_size;
        public byte* name;
        public UIntPtr name_length;
        public long* shape;
        public uint rank;
        public uint stored_dtype;
        public uint delivered_dtype;
        public uint shard;
        public UIntPtr index;
        public UIntPtr layer;
        public ulong bytes;
        public ulong stored_bytes;
        public ulong offset;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_view_t
    {
        public UIntPtr struct_size;
        public void* data;
        public UIntPtr size;
        public long* shape;
        public uint rank;
        public uint dtype;
        public uint device_kind;
        public uint device_ordinal;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_stats_t
    {
        public UIntPtr struct_size;
        public ulong total_bytes;
        public ulong delivered_bytes;
        public ulong resident_bytes;
        public ulong peak_resident_bytes;
        public ulong staging_bytes;
        public ulong hits;
        public ulong misses;
        public ulong stalls;
        public ulong evictions;
        public ulong allocations;
        public ulong mapped_bytes;
        public ulong buffered_bytes;
        public ulong direct_bytes;
        public ulong reader_fallbacks;
        public ulong workers;
        public double read_seconds;
        public double transform_seconds;
        public double copy_seconds;
        public ulong prefetches;
        public ulong retries;
        public ulong left_out;
        public ulong charged_bytes;
        public ulong peak_charged_bytes;
        public ulong revivals;
        public ulong peak_staging_bytes;
        public ulong is_staging_pageable;
        public ulong copied_bytes;
        public uint device_kind;
        public uint device_ordinal;
        public byte* device_reason;
        public UIntPtr device_reason_length;
        public ulong misaligned_tensors;
        public uint cache;
        public uint reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_layer_info_t
    {
        public UIntPtr struct_size;
        public byte* name;
        public UIntPtr name_length;
        public ulong bytes;
        public UIntPtr tensor_count;
        public UIntPtr position;
        public uint state;
        public uint reserved;
        public ulong acquire_count;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_metadata_info_t
    {
        public UIntPtr struct_size;
        public UIntPtr index;
        public byte* key;
        public UIntPtr key_length;
        public uint value_type;
        public uint element_type;
        public ulong count;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_model_info_t
    {
        public UIntPtr struct_size;
        public byte* name;
        public UIntPtr name_length;
        public byte* version;
        public UIntPtr version_length;
        public byte* store;
        public UIntPtr store_length;
        public byte* path;
        public UIntPtr path_length;
        public byte* architecture;
        public UIntPtr architecture_length;
        public byte* license;
        public UIntPtr license_length;
        public byte* tokenizer;
        public UIntPtr tokenizer_length;
        public ulong bytes;
        public ulong parameters;
        public ulong context_length;
        public ulong tensor_count;
        public UIntPtr file_count;
        public uint dtype;
        public uint format;
        public uint is_pinned;
        public uint reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_model_file_t
    {
        public UIntPtr struct_size;
        public byte* path;
        public UIntPtr path_length;
        public byte* digest;
        public UIntPtr digest_length;
        public ulong bytes;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct pml_zoo_options_t
    {
        public UIntPtr struct_size;
        public byte* path;
        public byte* huggingface_path;
        public byte* ollama_path;
        public byte* lm_studio_path;
        public ulong limit;
    }
}
