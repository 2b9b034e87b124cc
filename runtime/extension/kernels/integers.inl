// All kernels that multiply integers, in the vectors and dot products of the file that includes this.

#include "kernels/products_int16.inl"

#include "kernels/attention_int16.inl"
#include "kernels/linear_int8.inl"
#include "kernels/scorer_int12.inl"
