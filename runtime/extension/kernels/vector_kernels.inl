// All kernels that are written once, in the vectors and dot products of the file that includes this.

#include "kernels/products_int16.inl"
#include "kernels/products_f32.inl"

#include "kernels/attention_int16.inl"
#include "kernels/linear_int8.inl"
#include "kernels/scorer_f32.inl"
#include "kernels/scorer_int12.inl"
