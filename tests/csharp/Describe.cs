using System;
using System.Linq;
using System.Reflection;
using System.Runtime.InteropServices;

/// <summary>Prints what the assembly believes of pml.h: struct fields, enumerations, imported functions, public members.</summary>
internal static class Describe
{
    internal static void Print()
    {
        Assembly assembly = typeof(Pml.PmlLibrary).Assembly;
        foreach (Type type in assembly.GetTypes().Where(type => type.IsValueType && type.Name.StartsWith("pml_")))
        {
            Console.WriteLine("struct {0} {1}", type.Name, Marshal.SizeOf(type));
            foreach (FieldInfo field in type.GetFields(BindingFlags.Public | BindingFlags.Instance))
            {
                int size = field.FieldType.IsPointer ? IntPtr.Size : Marshal.SizeOf(field.FieldType);
                Console.WriteLine("field {0}.{1} {2} {3}", type.Name, field.Name, Marshal.OffsetOf(type, field.Name), size);
            }
        }
        foreach (Type type in assembly.GetTypes().Where(type => type.IsEnum))
        {
            foreach (string name in Enum.GetNames(type))
            {
                Console.WriteLine("enum {0}.{1} {2:d}", type.Name, name, Enum.Parse(type, name));
            }
        }
        BindingFlags all = BindingFlags.NonPublic | BindingFlags.Public | BindingFlags.Static | BindingFlags.Instance;
        foreach (MethodInfo method in assembly.GetType("Pml.Native.NativeMethods").GetMethods(all))
        {
            if ((method.Attributes & MethodAttributes.PinvokeImpl) == 0) continue;
            Console.WriteLine("import {0}", method.Name);
            foreach (ParameterInfo parameter in method.GetParameters().Concat(new[] { method.ReturnParameter }))
            {
                if (!IsBlittable(parameter.ParameterType)) Console.WriteLine("marshalled {0} {1}", method.Name, parameter);
            }
        }
        foreach (Type type in assembly.GetExportedTypes())
        {
            Console.WriteLine("type {0}", type.Name);
            foreach (MemberInfo member in type.GetMembers(BindingFlags.Public | BindingFlags.Static | BindingFlags.Instance | BindingFlags.DeclaredOnly))
            {
                Console.WriteLine("member {0}.{1}", type.Name, member.Name);
            }
        }
    }

    private static bool IsBlittable(Type type)
    {
        return type == typeof(void) || type.IsPointer || type == typeof(IntPtr) || type == typeof(UIntPtr) ||
            (type.IsPrimitive && type != typeof(bool) && type != typeof(char));
    }
}
